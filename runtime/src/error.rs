//! What can go wrong between an artifact and its results.

use std::io;
use std::path::PathBuf;

use fireq_ir::artifact::{ManifestError, SCHEMA};
use fireq_ir::plan::PlanError;
use fireq_ir::text::ParseError;
use thiserror::Error;

use crate::cuda::CudaError;

/// Why an artifact cannot be loaded or a step cannot be run.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// A file cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest is not one that this build reads.
    #[error("{}: {source}", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A file is not what the manifest vouches for.
    #[error("`{file}` does not have the hash that the manifest states: it was changed or damaged")]
    Hash {
        /// Path inside the artifact.
        file: String,
    },
    /// A file that every artifact has is not in the manifest.
    #[error("the manifest does not list `{0}`")]
    Unlisted(String),
    /// A link leads out of the artifact.
    #[error("`{0}` is a link that leads out of the artifact")]
    Outside(String),
    /// The code is for other machines.
    #[error("the artifact is compiled for {wanted}, which this machine does not have")]
    Machine {
        /// The architecture or the CPU feature.
        wanted: String,
    },
    /// There is code for GPUs only.
    #[error("the artifact is compiled for {arch} only")]
    NoCpu {
        /// The architecture.
        arch: String,
    },
    /// There are only shapes of weights.
    #[error("the artifact has no weights: it was compiled from a configuration alone")]
    Weightless,
    /// There is code for CPUs only.
    #[error("the artifact is compiled for CPUs only")]
    NoGpu,
    /// The plan's text is wrong.
    #[error("plan.ir: {0}")]
    PlanText(#[from] Box<ParseError>),
    /// The plan breaks its invariants.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A weight is missing from the weights or does not have the plan's type.
    #[error("weight `{name}`: {reason}")]
    Weight {
        /// Name in `weights.safetensors`.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The compiled code cannot be loaded.
    #[error("the compiled code cannot be loaded: {}", reason(.0))]
    Library(#[from] libloading::Error),
    /// The compiled code lacks a kernel of the plan.
    #[error("the compiled code has no kernel `{0}`, which the plan launches")]
    Kernel(String),
    /// What launches the GPU's kernels is missing or wrong.
    #[error("no program for GPUs: {0}")]
    Program(String),
    /// The GPU does not do what it is asked to.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The same, with what for.
    #[error("{what}: {source}")]
    Within {
        /// What was to be done.
        what: String,
        /// Why it is not.
        source: Box<RuntimeError>,
    },
    /// The plan is not that of a language model.
    #[error("the plan is not a language model's: {0}")]
    NotALanguageModel(String),
    /// A step does not fit what the executor was made for.
    #[error("{0}")]
    Step(String),
    /// The GPU has not enough memory.
    #[error("{wanted} are more than the {free} bytes of GPU memory that are free")]
    GpuMemory {
        /// What it is for.
        wanted: crate::cuda::Footprint,
        /// What there is.
        free: usize,
    },
    /// There is not enough memory.
    #[error("cannot allocate {bytes} bytes for {what}")]
    Memory {
        /// What for.
        what: String,
        /// How much.
        bytes: usize,
    },
}

impl RuntimeError {
    /// The same, with what for.
    pub(crate) fn of(self, what: &str) -> Self {
        RuntimeError::Within { what: what.into(), source: Box::new(self) }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            RuntimeError::Manifest { source: ManifestError::Schema { found }, .. } => {
                Some(if *found > SCHEMA.into() {
                    "use the version of fireq that wrote it, or a newer one"
                } else {
                    "compile the model again with this version of fireq"
                })
            }
            RuntimeError::Manifest { source: ManifestError::Json(_), .. } => {
                Some("an artifact is what `fireq compile` writes")
            }
            RuntimeError::Hash { .. }
            | RuntimeError::Unlisted(_)
            | RuntimeError::Io { .. }
            | RuntimeError::Outside(_)
            | RuntimeError::Weight { .. } => Some("copy the artifact again, or compile the model again"),
            RuntimeError::Cuda(error) => error.hint(),
            RuntimeError::Within { source, .. } => source.hint(),
            RuntimeError::Program(_)
            | RuntimeError::PlanText(_)
            | RuntimeError::Plan(_)
            | RuntimeError::Kernel(_)
            | RuntimeError::Library(_) => Some("compile the model again with this version of fireq"),
            RuntimeError::Machine { .. } => Some("compile the model on this machine, or with --cpu baseline"),
            RuntimeError::NoCpu { .. } => {
                Some("use --device cuda, or compile the model with --target cpu,sm_90a")
            }
            RuntimeError::Weightless => Some(
                "`fireq bench --device cuda --random-weights SEED` measures it; to run the model, compile its checkpoint",
            ),
            RuntimeError::GpuMemory { .. } => {
                Some("ask for a shorter context, fewer sequences or smaller steps")
            }
            RuntimeError::NoGpu => Some("compile the model with --target cpu,sm_90a"),
            RuntimeError::Memory { .. } => Some("ask for a shorter context"),
            _ => None,
        }
    }
}

/// What the system's loader says, which the library keeps one level down.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
