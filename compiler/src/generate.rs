//! Text generation: a prompt, then one token after the other.

use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError};

/// When to stop.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most tokens to generate.
    pub tokens: usize,
    /// Tokens that end the text; they are not passed on.
    pub eos: Vec<u32>,
}

/// How long the parts of a generation took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Time until the first token was chosen.
    pub prefill: Duration,
    /// Steps after the first token.
    pub steps: usize,
    /// Time they took.
    pub decode: Duration,
}

/// Tokens of one step of the prompt: bounds the memory for activations.
const PREFILL_STEP: usize = 512;

/// Continues a prompt. `choose` picks a token from logits; `emit` takes each and says whether to go on. Ends at the
/// limits, or when the context is full.
pub fn generate(
    engine: &mut Engine,
    prompt: &[u32],
    limits: &Limits,
    mut choose: impl FnMut(&[f32]) -> u32,
    mut emit: impl FnMut(u32) -> bool,
) -> Result<Timing, EngineError> {
    let began = Instant::now();
    let mut logits = prefill(engine, prompt)?;
    let mut timing = Timing { prompt: prompt.len(), prefill: began.elapsed(), ..Timing::default() };
    let began = Instant::now();
    let room = engine.context() - prompt.len() + 1;
    for n in 1..=limits.tokens.min(room) {
        let token = choose(&logits);
        if limits.eos.contains(&token) || !emit(token) || n == limits.tokens.min(room) {
            break;
        }
        logits = engine.last_logits(&[token])?;
        timing.steps += 1;
    }
    timing.decode = began.elapsed();
    Ok(timing)
}

/// Feeds a prompt in pieces; returns the logits after its last token.
pub fn prefill(engine: &mut Engine, prompt: &[u32]) -> Result<Vec<f32>, EngineError> {
    let mut logits = Err(EngineError::Empty);
    for piece in prompt.chunks(PREFILL_STEP) {
        logits = Ok(engine.last_logits(piece)?);
    }
    logits
}
