//! How long cases take on a GPU.

use fireq_runtime::cuda::{CudaError, Function, Gpu};
use serde::Serialize;

use crate::case::Case;
use crate::device::{launch, memory};

/// The time of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// Seconds, the median of all launches.
    pub median: f64,
    /// The fastest launch.
    pub fastest: f64,
    /// How many launches were timed.
    pub launches: usize,
}

/// Launches that are not timed.
const WARM_UP: usize = 5;
/// Launches that are.
const LAUNCHES: usize = 51;

/// Times launches one by one, each on a copy of the case's memory that no recent one used, behind a write that takes more
/// than the cache holds: nothing is read from the level-2 cache that a single launch would not have there.
pub fn time(gpu: &Gpu, function: &Function, case: &Case) -> Result<Timed, CudaError> {
    let copies: [_; 2] = memory(gpu, case)?;
    let times = gpu.times(WARM_UP, LAUNCHES, |n| launch(function, case, &copies[n % copies.len()]))?;
    Ok(Timed { median: times[LAUNCHES / 2], fastest: times[0], launches: LAUNCHES })
}
