//! Measurements that a compilation takes over.

use std::fs;
use std::path::Path;

use fireq::tune::FILE;
use fireq_kernels::cuda::tuning::Tuning;

use crate::failure::{Failure, Outcome};

/// Reads a table of measurements, or that of an artifact.
pub fn read(path: &Path) -> Outcome<Tuning> {
    let file = if path.is_dir() { path.join(FILE) } else { path.to_path_buf() };
    let failed = |what: String| {
        let failure = Failure::new(what).within(format!("cannot use `{}`", file.display()));
        failure.hint("`fireq tune` writes tuning.json into an artifact, on a machine with a GPU")
    };
    let text = fs::read_to_string(&file).map_err(|e| failed(e.to_string()))?;
    Tuning::parse(&text).map_err(failed)
}
