//! Tables of measurements and reports, changed by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::check("measurements", bytes));
