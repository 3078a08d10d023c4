//! CUDA units: what their texts are, and what NVRTC makes of them.

mod machine_code;
mod units;
