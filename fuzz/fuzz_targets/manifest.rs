#![no_main]

libfuzzer_sys::fuzz_target!(
    init: freshet_fuzz::write_seeds("manifest"),
    |bytes: &[u8]| freshet_fuzz::run("manifest", bytes)
);
