#![no_main]

libfuzzer_sys::fuzz_target!(
    init: freshet_fuzz::write_seeds("snapshot"),
    |bytes: &[u8]| freshet_fuzz::run("snapshot", bytes)
);
