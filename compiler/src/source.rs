//! What a path on the command line is: a model directory, an artifact, or a file of text IR.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Hugging Face model directory.
    ModelDir,
    /// An artifact of `fireq compile`.
    Artifact,
    /// Text IR.
    Ir,
    /// The config.json of a model, without weights.
    Config,
}

/// A path that is nothing fireq reads.
#[derive(Debug, Error)]
#[error("`{}` {reason}", path.display())]
pub struct SourceError {
    /// The path.
    pub path: PathBuf,
    /// Why.
    pub reason: &'static str,
}

impl SourceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        if is_gguf(&self.path) {
            return GGUF;
        }
        "give a model directory (config.json and *.safetensors) or an artifact of `fireq compile`"
    }
}

/// What to do with a GGUF file: names, order of channels in heads and tokenizer are its own, and most of its formats lose what a
/// checkpoint had.
pub(crate) const GGUF: &str = "compile the checkpoint that the GGUF file was made from; or load it in transformers \
    (from_pretrained(DIR, gguf_file=FILE)) and save it with save_pretrained";

/// By its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Tells by its files what a path is; nothing is read.
pub fn classify(path: &Path) -> Result<Source, SourceError> {
    let fail = |reason| Err(SourceError { path: path.into(), reason });
    if !path.exists() {
        return fail("does not exist");
    }
    if path.is_file() {
        let is_ir = path.extension().is_some_and(|e| e == "ir");
        if path.file_name().is_some_and(|name| name == "config.json") {
            return Ok(Source::Config);
        }
        if is_gguf(path) {
            return fail("is a GGUF file, which is not read");
        }
        return if is_ir { Ok(Source::Ir) } else { fail("is a file, and not one of text IR (*.ir)") };
    }
    if path.join("manifest.json").exists() {
        return Ok(Source::Artifact);
    }
    if path.join("config.json").exists() {
        return Ok(Source::ModelDir);
    }
    fail("has neither config.json nor manifest.json")
}
