#![no_main]

libfuzzer_sys::fuzz_target!(
    init: freshet_fuzz::write_seeds("key_sets"),
    |bytes: &[u8]| freshet_fuzz::run("key_sets", bytes)
);
