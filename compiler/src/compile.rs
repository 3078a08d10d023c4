//! The compile driver up to the plan, and what is known of an artifact before it is built.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fireq_codegen::artifact::ArtifactError;
use fireq_ir::Failed;
use fireq_ir::artifact::ModelFacts;
use fireq_ir::plan::{LowerError, Place, Plan, parts};
use thiserror::Error;

use crate::import::{ImportError, Model};

/// Why a model was not compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The model was refused.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] Box<Failed>),
    /// No plan can hold the graph.
    #[error("the graph does not lower to a plan")]
    Lower(#[from] LowerError),
    /// No artifact was written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A file that an artifact keeps is not the model's own.
    #[error(transparent)]
    Kept(#[from] io::Error),
}

impl CompileError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            CompileError::Import(error) => error.hint(),
            CompileError::Pass(_) => "dump the IR before it with --dump-ir, or leave it out with --passes",
            CompileError::Lower(_) => {
                "run a whole recipe: passes bring a graph into the form that plans hold"
            }
            CompileError::Artifact(ArtifactError::Exists(_)) => {
                "give another path, or remove what is there: only artifacts are replaced"
            }
            CompileError::Artifact(ArtifactError::NonFinite { .. }) => {
                "the checkpoint is damaged or diverged in training: download it again"
            }
            CompileError::Artifact(ArtifactError::Code(_)) => {
                "`fireq doctor` says what code generation needs; --cpu baseline asks the least of the machine"
            }
            CompileError::Artifact(ArtifactError::Busy(_)) => "wait until it is done, or give another path",
            CompileError::Artifact(ArtifactError::Changed(_)) => {
                "no artifact was written; leave the model as it is, and compile it again"
            }
            CompileError::Kept(_) => {
                "look at what it leads to: it would be copied into the artifact; copy it to the model yourself if that is wanted"
            }
            CompileError::Artifact(_) => {
                "the output needs a directory that can be written, with room for the weights; the same command goes \
                 on where it stopped"
            }
        }
    }
}

/// Bytes that an artifact's parts take, known before any weight is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// `weights.safetensors` without its header.
    pub weights: u64,
    /// All KV caches, per position.
    pub cache_per_token: u64,
    /// Scratch of a step, per token.
    pub arena_per_token: u64,
}

/// The sizes that a plan implies.
pub fn sizes(plan: &Plan) -> Sizes {
    let mut sizes = Sizes { arena_per_token: plan.arena_bytes_per_token as u64, ..Sizes::default() };
    let mut caches = BTreeMap::new();
    for buffer in &plan.buffers {
        let parts = parts(&buffer.ty, buffer.storage).unwrap_or_default();
        let row: u64 = parts.iter().map(|part| part.row_bytes() as u64).sum();
        match &buffer.place {
            Place::Weight(_) => {
                let stored = buffer.stored().into_iter().map(|bytes| bytes as u64);
                // An artifact without weights may claim any.
                sizes.weights = stored.fold(sizes.weights, u64::saturating_add);
            }
            Place::Cache(name) => drop(caches.insert(name.clone(), row)),
            _ => {}
        }
    }
    sizes.cache_per_token = caches.values().sum();
    sizes
}

/// What an artifact says about the model.
pub fn facts(model: &Model) -> ModelFacts {
    let config = &model.config;
    ModelFacts { context: config.context, vocab: config.vocab, bos: config.bos, eos: config.eos.clone() }
}

/// The files of a model directory that an artifact keeps, and a checkpoint that is made of it. Weights may be wherever links lead; but of what is copied, and goes
/// where the artifact goes, a link may lead only to the directory itself, or to where a cache of downloads keeps the files of its
/// models: `snapshots/*/file` to `blobs/`. Anything else is an error, since a directory that somebody made could name any file of
/// whoever compiles it.
pub fn kept_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> =
        KEPT.map(|name| dir.join(name)).into_iter().filter(|path| path.is_file()).collect();
    match paths.iter().find(|path| !is_of(dir, path)) {
        None => Ok(paths),
        Some(path) => {
            Err(io::Error::other(format!("`{}` is a link that leads out of the model", path.display())))
        }
    }
}

fn is_of(dir: &Path, path: &Path) -> bool {
    let (Ok(dir), Ok(real)) = (dir.canonicalize(), path.canonicalize()) else { return false };
    let snapshots = dir.parent().filter(|parent| parent.ends_with("snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|cache| cache.join("blobs"));
    real.starts_with(dir) || blobs.is_some_and(|blobs| real.starts_with(blobs))
}

const KEPT: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_weights_that_are_only_claimed_end_at_the_largest_number() {
        let weight = |n| format!("  %{n} : weight \"w{n}\" f32[2000000,1099511627776]\n");
        let weights: String = (0..3).map(weight).collect();
        let plan = fireq_ir::plan::parse_plan(&format!("plan \"p\" arena 64 {{\n{weights}}}\n")).unwrap();
        assert_eq!(sizes(&plan).weights, u64::MAX);
    }
}
