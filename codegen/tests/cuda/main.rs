//! CUDA units: what their texts are, and what NVRTC makes of them.

mod cache;
mod machine_code;
mod units;
