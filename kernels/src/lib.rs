//! What code generators and the runtime share about kernels: how weights are laid out, and how large tiles are.
//!
//! Measurements are in `RESULTS.md` beside this crate.

pub mod cpu;
pub mod cuda;
mod launch;
pub mod layout;
pub mod pages;
mod tile;

pub use fireq_ir::plan::records;
pub use launch::{LaunchShape, Swizzle, TensorMapShape};
pub use tile::{CpuTile, VectorRegisters, linear_scratch};
