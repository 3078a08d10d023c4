//! Artifacts, as one who forges them writes them, changed by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::check("artifact", bytes));
