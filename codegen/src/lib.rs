//! Code generation: plans to LLVM and shared libraries, to CUDA and cubins, and the artifact that holds the result.

pub mod artifact;
pub mod cuda;
#[cfg(feature = "llvm")]
pub mod llvm;
