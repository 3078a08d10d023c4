//! The program of an artifact, and its kernels.

use std::fs;

use fireq_ir::artifact::{CUDA_KERNELS, CUDA_PROGRAM};
use fireq_ir::plan::{Buffer, Place, Plan};
use fireq_kernels::cuda::program::Program;

use super::buffers::row_bytes;
use super::{Function, Gpu};
use crate::files::inside;
use crate::{Artifact, RuntimeError};

/// The program of a verified plan.
pub(super) fn read(artifact: &Artifact, plan: &Plan) -> Result<Program, RuntimeError> {
    let files = &artifact.manifest.files;
    if !files.contains_key(CUDA_PROGRAM) {
        let missing = artifact.manifest.cuda.iter().flat_map(fireq_ir::artifact::CudaCode::missing).next();
        let reason =
            missing.map_or_else(|| "there is none".into(), |m| format!("`{}`: {}", m.name, m.reason));
        return Err(RuntimeError::Program(reason));
    }
    let program: Program = serde_json::from_str(&artifact.text(CUDA_PROGRAM)?)
        .map_err(|e| RuntimeError::Program(e.to_string()))?;
    let rows: Vec<Vec<usize>> = plan.buffers.iter().map(rows_of).collect();
    program.verify(&rows).map_err(RuntimeError::Program)?;
    Ok(program)
}

/// Bytes of a row of each part that has an address.
fn rows_of(buffer: &Buffer) -> Vec<usize> {
    if matches!(buffer.place, Place::Cache(_)) { vec![] } else { row_bytes(buffer) }
}

/// A kernel of the artifact.
pub(super) fn load(gpu: &Gpu, artifact: &Artifact, name: &str) -> Result<Function, RuntimeError> {
    let file = format!("{CUDA_KERNELS}/{name}.cubin");
    if !artifact.manifest.files.contains_key(&file) {
        return Err(RuntimeError::Unlisted(file));
    }
    let path = inside(&artifact.dir, &file)?;
    let cubin = fs::read(&path).map_err(|source| RuntimeError::Io { path, source })?;
    Ok(gpu.load(&cubin)?.function(name)?)
}
