//! Plan → CUDA units → PTX and cubins for Hopper, on any machine with NVRTC.
//!
//! A plan of fused launches says what is computed; [`mod@select`] says which kernels do it, and which have none yet.

mod attention;
mod bind;
pub mod cache;
pub mod cubin;
mod heads;
pub mod linear;
pub mod nvrtc;
mod run;
pub mod select;
pub mod toolkit;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fireq_ir::artifact::{CUDA_KERNELS, CUDA_PROGRAM, CudaCode};
use fireq_ir::plan::Plan;
use fireq_kernels::cuda::Unit;
use fireq_kernels::cuda::include::IncludeError;
use fireq_kernels::cuda::tuning::Tuning;
use rayon::prelude::*;
use thiserror::Error;

use cache::Cache;
use nvrtc::{ARCHITECTURE, NvrtcFailure};
use select::{Selection, select};

/// Why there is no GPU code.
#[derive(Debug, Error)]
pub enum CudaError {
    /// NVRTC is missing, or failed.
    #[error(transparent)]
    Nvrtc(#[from] NvrtcFailure),
    /// A building block is missing.
    #[error(transparent)]
    Include(#[from] IncludeError),
    /// A file could not be written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Compiles the kernels of a plan of fused launches into the artifact directory `dir`, with the program that launches them
/// where none is missing, and says what they are. Products are configured as `tuning` has it.
pub fn generate(plan: &Plan, tuning: &Tuning, cache: &Cache, dir: &Path) -> Result<CudaCode, CudaError> {
    let Selection { choices, program } = select(plan, tuning);
    let folder = dir.join(CUDA_KERNELS);
    fs::create_dir_all(&folder).map_err(|source| CudaError::Io { path: folder.clone(), source })?;
    let units: BTreeMap<&str, &Unit> =
        choices.iter().filter_map(|choice| choice.unit.as_ref()).map(|unit| (&*unit.name, unit)).collect();
    units.into_values().collect::<Vec<_>>().par_iter().try_for_each(|unit| write(unit, cache, &folder))?;
    if let Some(program) = program {
        let path = dir.join(CUDA_PROGRAM);
        fs::write(&path, program.to_json()).map_err(|source| CudaError::Io { path, source })?;
    }
    let kernels = choices.into_iter().map(|choice| choice.kernel).collect();
    Ok(CudaCode { arch: ARCHITECTURE.into(), kernels })
}

/// Compiles a unit, and writes its self-contained source, PTX and cubin.
fn write(unit: &Unit, cache: &Cache, folder: &Path) -> Result<(), CudaError> {
    let source = unit.source()?;
    let compiled = cache.compile(&unit.name, &source)?;
    let files =
        [("cu", source.as_bytes()), ("ptx", compiled.ptx.as_bytes()), ("cubin", compiled.cubin.as_slice())];
    for (extension, bytes) in files {
        let path = folder.join(format!("{}.{extension}", unit.name));
        fs::write(&path, bytes).map_err(|source| CudaError::Io { path, source })?;
    }
    Ok(())
}
