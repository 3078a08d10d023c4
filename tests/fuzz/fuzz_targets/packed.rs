//! Models with packed weights, changed by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::check("packed", bytes));
