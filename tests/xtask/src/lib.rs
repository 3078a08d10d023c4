//! What `cargo xtask` does to checkpoints and tests want too. Needs no LLVM.

pub mod outliers;
