//! Text generation: a prompt, then one token after the other.

use std::time::{Duration, Instant};

use fireq_runtime::{Draw, Sampler};

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
    /// Tokens generated.
    pub generated: usize,
    /// Steps of the model after the prompt; the first token needs none, and the last is not fed back.
    pub steps: usize,
    /// Time that choosing and these steps took.
    pub decode: Duration,
}

/// Tokens of one step of the prompt: bounds the memory for activations.
const PREFILL_STEP: usize = 512;

/// Continues a prompt by the tokens that a sampler draws, of which `emit` takes each as it comes. Ends at the limits, or when the
/// context is full.
pub fn generate<E: From<EngineError>>(
    engine: &mut Engine,
    prompt: &[u32],
    limits: &Limits,
    sampler: &mut Sampler,
    mut emit: impl FnMut(u32) -> Result<(), E>,
) -> Result<Timing, E> {
    let began = Instant::now();
    let mut timing = Timing { prompt: prompt.len(), ..Timing::default() };
    let most = limits.tokens.min(engine.context().saturating_sub(prompt.len()) + 1);
    let mut token = prefill(engine, prompt, &sampler.draw())?;
    timing.prefill = began.elapsed();
    let began = Instant::now();
    while timing.generated < most && !limits.eos.contains(&token) {
        emit(token)?;
        timing.generated += 1;
        if timing.generated < most {
            token = engine.next(&[token], &sampler.draw())?;
            timing.steps += 1;
        }
    }
    timing.decode = began.elapsed();
    Ok(timing)
}

/// Feeds a prompt in pieces; returns the token that a draw takes after its last.
pub fn prefill(engine: &mut Engine, prompt: &[u32], draw: &Draw) -> Result<u32, EngineError> {
    let mut token = Err(EngineError::Empty);
    for piece in prompt.chunks(PREFILL_STEP) {
        token = Ok(engine.next(piece, draw)?);
    }
    token
}
