//! Files of an artifact: regular ones, inside its folder.
//!
//! Names in a manifest are relative and go no way up ([`fireq_ir::artifact::Manifest::parse`]); links could still lead out of the folder, or to
//! something that never ends. Links inside it are followed, and the folder itself may be one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::RuntimeError;

/// The most bytes of a text: far beyond the plan of any model, and little enough to be parsed.
const MOST: u64 = 64 << 20;

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
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(MOST + 1).read_to_string(&mut text));
    let bytes = read.map_err(|source| RuntimeError::Io { path: path.clone(), source })?;
    if bytes as u64 <= MOST {
        return Ok(text);
    }
    let source = io::Error::other(format!("it has more than {} MiB", MOST >> 20));
    Err(RuntimeError::Io { path, source })
}
