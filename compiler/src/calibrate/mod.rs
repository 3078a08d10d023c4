//! Calibration: the text that passes see, and what runs graphs on it.

#[cfg(feature = "llvm")]
mod compiled;
mod journal;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fireq_ir::artifact::ModelFacts;
use fireq_ir::interp::Tensor;
use fireq_passes::random::Tensors;
use fireq_passes::{Calibration, RunError, Runner};

use crate::tokens::Tokens;

#[cfg(feature = "llvm")]
pub use compiled::Compiled;
pub use journal::{Folder, News};

/// Stories in simple English, for models that are given no text of their own.
const BUNDLED: &str = include_str!("../calibration.txt");

/// What passes are calibrated on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationOptions {
    /// A UTF-8 text; the bundled one without.
    pub text: Option<PathBuf>,
    /// Tokens in all.
    pub tokens: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// Threads that run graphs.
    pub threads: usize,
}

/// Calibration data for the model in `dir`. The text is read, and a tokenizer needed, when a pass first asks for it.
pub fn calibration(dir: &Path, facts: &ModelFacts, options: CalibrationOptions) -> Calibration {
    let (dir, facts) = (dir.to_path_buf(), facts.clone());
    Calibration::new(runner(options.threads), move || read(&dir, &facts, &options))
}

/// What runs graphs.
#[cfg(feature = "llvm")]
pub(crate) fn runner(threads: usize) -> Arc<dyn Runner> {
    Arc::new(Compiled::new(threads))
}

#[cfg(not(feature = "llvm"))]
pub(crate) fn runner(_: usize) -> Arc<dyn Runner> {
    Arc::new(fireq_passes::Interpreter)
}

fn read(dir: &Path, facts: &ModelFacts, options: &CalibrationOptions) -> Result<Vec<Tensors>, RunError> {
    let text = match &options.text {
        None => BUNDLED.to_string(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| RunError(format!("cannot read `{}`: {e}", path.display())))?,
    };
    let tokens =
        Tokens::load(dir, facts.bos).map_err(|e| RunError(format!("calibration reads text: {e}")))?;
    let parts = tokens.encode_parts(&text).map_err(|e| RunError(e.to_string()))?;
    let sequence = options.sequence.min(facts.context).max(2);
    if let Some(id) = parts.ids.iter().find(|id| **id as usize >= facts.vocab) {
        return Err(RunError(format!("the tokenizer gives token {id}, the model has {}", facts.vocab)));
    }
    let found = sequences(parts.start, &parts.ids, options.tokens.div_ceil(sequence), sequence);
    if found.is_empty() { Err(RunError("the calibration text is empty".into())) } else { Ok(found) }
}

/// A language model's inputs for `ids`: windows of `tokens`, `most` of them at most, spread evenly over the text, each
/// beginning with `start` if there is one.
pub fn sequences(start: Option<u32>, ids: &[u32], most: usize, tokens: usize) -> Vec<Tensors> {
    let body = tokens.saturating_sub(usize::from(start.is_some())).max(1);
    let windows: Vec<&[u32]> = ids.chunks(body).collect();
    let count = most.clamp(1, windows.len().max(1));
    let chosen = (0..count).filter_map(|n| windows.get(n * windows.len() / count));
    let inputs = |window: &&[u32]| {
        let ids: Vec<i32> = start.iter().chain(window.iter()).map(|id| *id as i32).collect();
        let counting: Vec<i32> = (0..ids.len() as i32).collect();
        let named = [("tokens", &ids), ("positions", &counting), ("select", &counting)];
        named.map(|(name, values)| (name.to_string(), Tensor::from_i32(values))).into()
    };
    chosen.map(inputs).collect()
}
