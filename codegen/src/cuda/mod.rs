//! Plan → CUDA units → PTX and cubins for Hopper, on any machine with NVRTC.

pub mod cache;
pub mod cubin;
pub mod nvrtc;
pub mod toolkit;
