//! Code generation: plans to LLVM and shared libraries, and the artifact that holds the result.

#[cfg(feature = "llvm")]
pub mod llvm;
