//! Kernels against results that are known beforehand: a [`Case`] is one launch with its memory before and after it, made
//! here from the interpreter, and executed on the simulator or, from a file, on a GPU. Cases without results are for timing.

mod case;
mod compare;
mod device;
mod timing;

pub use case::{Buffer, Case, CaseError, Cost, Expected, Init, POISON, Param, Tolerance};
pub use compare::{Agreement, Dtype, compare};
pub use device::{Outcome, check};
pub use timing::{Timed, time};
