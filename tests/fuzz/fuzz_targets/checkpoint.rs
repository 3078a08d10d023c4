//! Files of weights, and an index of them, changed by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::check("checkpoint", bytes));
