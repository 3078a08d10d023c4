//! Why no artifact is written.

use std::io;
use std::path::{Path, PathBuf};

use fireq_ir::interp::InterpError;
use thiserror::Error;

/// Why no artifact was written. An earlier artifact of the same name is as it was.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The output exists and is something else.
    #[error("`{}` exists and is not an artifact", .0.display())]
    Exists(PathBuf),
    /// Another process writes it.
    #[error("another fireq is writing `{}`", .0.display())]
    Busy(PathBuf),
    /// What is read changed meanwhile.
    #[error("`{}` was changed, replaced or cut off while it was being read", .0.display())]
    Changed(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A weight has a number that is not finite.
    #[error("tensor `{tensor}` has a NaN or infinity at element {element}")]
    NonFinite {
        /// The tensor's name.
        tensor: String,
        /// Index of the first such element.
        element: usize,
    },
    /// A weight could not be computed.
    #[error(transparent)]
    Weight(#[from] InterpError),
    /// Code generation failed.
    #[error(transparent)]
    Code(Box<dyn std::error::Error + Send + Sync>),
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ArtifactError + '_ {
    move |source| ArtifactError::Io { path: path.to_path_buf(), source }
}
