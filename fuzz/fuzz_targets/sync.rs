#![no_main]

libfuzzer_sys::fuzz_target!(
    init: freshet_fuzz::write_seeds("sync"),
    |bytes: &[u8]| freshet_fuzz::run("sync", bytes)
);
