//! How well a model predicts a text, and how close it stays to another model.

use crate::engine::{Engine, EngineError};

/// Sums over predicted tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Tokens predicted.
    pub tokens: usize,
    /// Sum of negative log likelihoods, in nats.
    pub nll: f64,
}

impl Score {
    /// `exp` of the mean negative log likelihood.
    pub fn perplexity(&self) -> f64 {
        (self.nll / self.tokens as f64).exp()
    }
}

/// How close a model stays to a reference, over the predicted tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Closeness {
    /// Score of the reference.
    pub reference: Score,
    /// Sum of KL divergences of the model from the reference, in nats.
    pub kl: f64,
    /// Predictions whose most likely token is the reference's.
    pub same_top: usize,
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Score of the model.
    pub score: Score,
    /// Against a reference, if there was one.
    pub closeness: Option<Closeness>,
}

/// Tokens of one step: bounds the memory for logits whatever the window.
const STEP: usize = 128;

/// Predicts every token of `ids` but the first of each window from those before it in the window. Windows have `ctx`
/// tokens, do not overlap, and begin with `start` if there is one. `done` hears how many tokens are behind.
pub fn evaluate(
    model: &mut Engine,
    mut reference: Option<&mut Engine>,
    (start, ids): (Option<u32>, &[u32]),
    ctx: usize,
    mut done: impl FnMut(usize),
) -> Result<Evaluation, EngineError> {
    let closeness = reference.is_some().then(Closeness::default);
    let mut found = Evaluation { score: Score::default(), closeness };
    let body = ctx.saturating_sub(usize::from(start.is_some())).max(1);
    for (n, chunk) in ids.chunks(body).enumerate() {
        let window: Vec<u32> = start.iter().chain(chunk).copied().collect();
        evaluate_window(model, reference.as_deref_mut(), &window, &mut found)?;
        done(n * body + chunk.len());
    }
    Ok(found)
}

fn evaluate_window(
    model: &mut Engine,
    mut reference: Option<&mut Engine>,
    window: &[u32],
    found: &mut Evaluation,
) -> Result<(), EngineError> {
    model.reset();
    if let Some(reference) = &mut reference {
        reference.reset();
    }
    let Some(predicted) = window.get(1..) else { return Ok(()) };
    for (inputs, targets) in window.chunks(STEP).zip(predicted.chunks(STEP)) {
        let inputs = &inputs[..targets.len()];
        let logits = model.logits(inputs)?;
        let expected = reference.as_mut().map(|r| r.logits(inputs)).transpose()?;
        for (row, target) in targets.iter().enumerate() {
            let slice = |all: &[f32], vocab: usize| log_softmax(&all[row * vocab..][..vocab]);
            let ours = slice(&logits, model.vocab());
            add(&mut found.score, &ours, *target);
            if let (Some(closeness), Some(expected), Some(r)) = (&mut found.closeness, &expected, &reference)
            {
                compare(closeness, &slice(expected, r.vocab()), &ours, *target);
            }
        }
    }
    Ok(())
}

fn add(score: &mut Score, log_probs: &[f64], target: u32) {
    score.tokens += 1;
    score.nll -= log_probs[target as usize];
}

fn compare(closeness: &mut Closeness, expected: &[f64], ours: &[f64], target: u32) {
    add(&mut closeness.reference, expected, target);
    closeness.kl += expected.iter().zip(ours).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    closeness.same_top += usize::from(top(expected) == top(ours));
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    logits.iter().map(|x| f64::from(x - max) - sum.ln()).collect()
}

fn top(log_probs: &[f64]) -> Option<usize> {
    (0..log_probs.len()).reduce(|best, i| if log_probs[i] > log_probs[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_softmax_sums_to_one_and_survives_large_logits() {
        let log_probs = log_softmax(&[1000.0, 1001.0, 999.0]);
        assert!((log_probs.iter().map(|p| p.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(top(&log_probs), Some(1));
    }

    #[test]
    fn a_distribution_is_as_close_to_itself_as_can_be() {
        let log_probs = log_softmax(&[0.5, -1.0, 2.0]);
        let mut closeness = Closeness::default();
        compare(&mut closeness, &log_probs, &log_probs, 2);
        assert_eq!((closeness.kl, closeness.same_top), (0.0, 1));
        let other = log_softmax(&[2.0, -1.0, 0.5]);
        compare(&mut closeness, &log_probs, &other, 2);
        assert!(closeness.kl > 0.5 && closeness.same_top == 1);
    }
}
