//! Why a model was not exported.

use std::io;
use std::path::{Path, PathBuf};

use fireq_codegen::artifact::ArtifactError;
use fireq_ir::PatchError;
use fireq_ir::interp::InterpError;
use fireq_ir::plan::LowerError;
use fireq_ir::text::ParseError;
use fireq_runtime::RuntimeError;
use thiserror::Error;

use crate::import::ImportError;

/// Why a model was not exported. Nothing is left behind, and an earlier export of the same name is as it was.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The output exists and is something else.
    #[error("`{}` exists and is not an export", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output could not take its place, or what it is made of changed.
    #[error(transparent)]
    Place(#[from] ArtifactError),
    /// The configuration was refused.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The artifact was refused.
    #[error(transparent)]
    Artifact(#[from] RuntimeError),
    /// The artifact lacks a file that a checkpoint is made of.
    #[error("`{}` has no {file}", dir.display())]
    Missing {
        /// The artifact.
        dir: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// The artifact's graph is no text IR.
    #[error("`{}` is not valid text IR", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<ParseError>,
    },
    /// The artifact's plan is not that of its graph.
    #[error("`{}`: the plan is not that of the graph", .0.display())]
    Foreign(PathBuf),
    /// The artifact's graph does not lower.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Fused operations cannot be taken apart.
    #[error("fused operations cannot be taken apart")]
    Fused(#[from] PatchError),
    /// Keys and queries have scales behind rope, which no checkpoint has a place for.
    #[error("keys have scales behind rope, which checkpoints have no place for: caches {}", caches.join(", "))]
    ScalesBehindRope {
        /// The caches of these keys.
        caches: Vec<String>,
    },
    /// What flows between operations has scales that no pass folded into weights.
    #[error("the graph has scales that are part of no weight: {}", names.join(", "))]
    Scales {
        /// The scales.
        names: Vec<String>,
    },
    /// The graph computes something else than its configuration says.
    #[error("the graph has {found} where config.json implies {wanted}")]
    Structure {
        /// What the graph has.
        found: String,
        /// What the configuration describes.
        wanted: String,
    },
    /// No weight is INT4.
    #[error("no linear has an INT4 weight that compressed-tensors can hold")]
    NothingQuantized,
    /// A weight could not be computed.
    #[error(transparent)]
    Weight(#[from] InterpError),
    /// A weight has a number that is not finite.
    #[error("tensor `{tensor}` has a NaN or infinity")]
    NonFinite {
        /// The tensor's name.
        tensor: String,
    },
}

impl ExportError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            ExportError::Exists(_) => "give another path, or remove what is there: only exports are replaced",
            ExportError::Io { .. } => {
                "the output needs a directory that can be written, with room for the weights"
            }
            ExportError::Place(ArtifactError::Changed(_)) => {
                "nothing was written; leave the model as it is, and export it again"
            }
            ExportError::Place(_) => "give a path where a directory can be written",
            ExportError::Import(error) => error.hint(),
            ExportError::Artifact(error) => error.hint().unwrap_or("compile the model again"),
            ExportError::Missing { .. } => {
                "it is of an older fireq: compile the model again, or export its directory"
            }
            ExportError::Text { .. } | ExportError::Foreign(_) | ExportError::Lower(_) => {
                "compile the model again, or export its directory"
            }
            ExportError::ScalesBehindRope { .. } => {
                "`fireq export MODEL_DIR --recipe …` leaves smooth-rope-post out of the recipe, which is exact; with \
                 --passes, leave it out there"
            }
            ExportError::Scales { .. } => {
                "fold-scales in the pipeline makes them part of the weights around them"
            }
            ExportError::Structure { .. } => "leave passes out that change more than weights and roundings",
            ExportError::NothingQuantized => {
                "--format safetensors-bf16 writes unquantized models; recipes such as rtn quantize"
            }
            ExportError::Fused(_) => "leave fusing passes out of the pipeline",
            ExportError::Weight(_) | ExportError::NonFinite { .. } => {
                "the checkpoint is damaged or diverged in training: download it again"
            }
        }
    }
}

/// An error of the file system at `path`.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ExportError + '_ {
    move |source| ExportError::Io { path: path.into(), source }
}
