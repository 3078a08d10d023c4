//! Files of an artifact: regular ones, inside its folder.
//!
//! Names in a manifest are relative and go no way up ([`fireq_ir::artifact::Manifest::parse`]); links could still lead out of the folder, or to
//! something that never ends. Links inside it are followed, and the folder itself may be one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{RuntimeError, bounded};

/// The path of a file of the artifact `dir`, which is a regular file inside it.
pub(crate) fn inside(dir: &Path, file: &str) -> Result<PathBuf, RuntimeError> {
    let path = dir.join(file);
    let io = |source| RuntimeError::Io { path: path.clone(), source };
    let (root, real) = (dir.canonicalize().map_err(io)?, path.canonicalize().map_err(io)?);
    if !real.starts_with(root) {
        return Err(RuntimeError::Outside(file.into()));
    }
    if !fs::metadata(&real).map_err(io)?.is_file() {
        return Err(io(io::Error::other("it is not a regular file")));
    }
    Ok(path)
}

/// The text in a file of the artifact `dir`.
pub(crate) fn text(dir: &Path, file: &str) -> Result<String, RuntimeError> {
    let path = inside(dir, file)?;
    let text = |bytes| {
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
        String::from_utf8(bytes).map_err(wrong)
    };
    bounded::read(&path).and_then(text).map_err(|source| RuntimeError::Io { path, source })
}
