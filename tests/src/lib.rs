//! The tests that need more than one crate: file tests, the op suite, tidiness. What they share is how the compiler
//! itself compares graphs.

pub use fireq::numerics::{Tensors, bindings, difference, random_inputs, relative_error};

pub mod fuzz;
