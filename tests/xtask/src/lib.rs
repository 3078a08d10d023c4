//! What `cargo xtask` does that tests want too. Needs no LLVM.

pub mod crash;
pub mod outliers;
pub mod random_model;
#[cfg(target_os = "linux")]
pub mod served;
