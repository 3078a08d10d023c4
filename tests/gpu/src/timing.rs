//! How long cases take on a GPU.

use fireq_runtime::cuda::{CudaError, DeviceBytes, Function, Gpu};
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
    let copies = [memory(gpu, case)?, memory(gpu, case)?];
    let mut flush = gpu.allocate(2 * usize::try_from(gpu.facts()?.l2).unwrap_or(0))?;
    let timer = gpu.timer()?;
    let mut once = |memory: &[DeviceBytes]| {
        flush.fill(0)?;
        timer.start()?;
        launch(function, case, memory)?;
        timer.stop()
    };
    for copy in copies.iter().cycle().take(WARM_UP) {
        once(copy)?;
    }
    let mut times =
        copies.iter().cycle().take(LAUNCHES).map(|copy| once(copy)).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    Ok(Timed { median: times[LAUNCHES / 2], fastest: times[0], launches: LAUNCHES })
}
