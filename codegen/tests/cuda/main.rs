//! CUDA units: what their texts are, and what NVRTC makes of them.

mod attention;
mod cache;
mod linear_fp8;
mod machine_code;
mod odd;
mod prefill;
mod units;
