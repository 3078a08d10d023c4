//! Why a model directory was refused.

use std::io;
use std::path::{Path, PathBuf};

use fireq_ir::infer::InferError;
use thiserror::Error;

/// Why a model directory was refused. Each says what is wrong and where; [`ImportError::hint`] says what to do.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file of the directory could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A JSON file does not parse, or a value has another type than its key takes.
    #[error("`{}` is not valid JSON for a model", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// The directory or its configuration describes something that cannot be compiled.
    #[error("`{}`: {reason}", path.display())]
    Unsupported {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A tensor is absent, superfluous, misshapen, or of a dtype that is not read.
    #[error("{reason}")]
    Tensors {
        /// What is wrong, naming tensors.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The graph refused an operation: the configuration is inconsistent in a way no other check names.
    #[error("the configuration does not make a valid graph")]
    Graph(#[from] InferError),
}

impl ImportError {
    /// What to do about it, in one sentence.
    pub fn hint(&self) -> &str {
        match self {
            ImportError::Read { .. } => "a model is a directory with config.json and *.safetensors files",
            ImportError::Json { .. } => "download the file again, or correct it at the line and column above",
            ImportError::Unsupported { hint, .. } | ImportError::Tensors { hint, .. } => hint,
            ImportError::Graph(_) => "check the sizes in config.json",
        }
    }

    pub(super) fn unsupported(path: &Path, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        ImportError::Unsupported { path: path.into(), reason: reason.into(), hint: hint.into() }
    }

    pub(super) fn tensors(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        ImportError::Tensors { reason: reason.into(), hint: hint.into() }
    }
}
