#![no_main]
#![allow(dead_code)]

#[path = "../../src/untrusted.rs"]
mod untrusted;

libfuzzer_sys::fuzz_target!(|text: &str| untrusted::pipeline(text));
