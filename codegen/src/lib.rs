//! Code generation: plans to LLVM and shared libraries, and the artifact that holds the result.

pub mod artifact;
#[cfg(feature = "llvm")]
pub mod llvm;
