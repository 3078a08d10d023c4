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
    /// Tokens generated.
    pub generated: usize,
    /// Steps of the model after the prompt; the first token needs none, and the last is not fed back.
    pub steps: usize,
    /// Time that choosing and these steps took.
    pub decode: Duration,
}

/// Tokens of one step of the prompt: bounds the memory for activations.
const PREFILL_STEP: usize = 512;

/// Continues a prompt. `choose` picks a token from logits; `emit` takes each as it comes. Ends at the limits, or when
/// the context is full.
pub fn generate<E: From<EngineError>>(
    engine: &mut Engine,
    prompt: &[u32],
    limits: &Limits,
    mut choose: impl FnMut(&[f32]) -> u32,
    mut emit: impl FnMut(u32) -> Result<(), E>,
) -> Result<Timing, E> {
    let began = Instant::now();
    let mut logits = prefill(engine, prompt)?;
    let mut timing = Timing { prompt: prompt.len(), prefill: began.elapsed(), ..Timing::default() };
    let began = Instant::now();
    let most = limits.tokens.min(engine.context() - prompt.len() + 1);
    while timing.generated < most {
        let token = choose(&logits);
        if limits.eos.contains(&token) {
            break;
        }
        emit(token)?;
        timing.generated += 1;
        if timing.generated < most {
            logits = engine.last_logits(&[token])?;
            timing.steps += 1;
        }
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
