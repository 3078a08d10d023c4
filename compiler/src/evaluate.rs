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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closeness {
    /// Score of the reference.
    pub reference: Score,
    /// Sum of KL divergences of the model from the reference, in nats.
    pub kl: f64,
    /// Predictions whose most likely token is the reference's.
    pub same_top: usize,
    /// The predictions that diverge most.
    pub worst: Worst,
}

/// Where a predicted token stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Index among the tokens of the text.
    pub index: usize,
    /// Tokens of the text before it in its window: what it was predicted from.
    pub context: usize,
}

/// A prediction that differs between a model and its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// The token predicted.
    pub place: Place,
    /// KL divergence of the model from the reference, in nats.
    pub kl: f64,
    /// What the model adds to the token's negative log likelihood, in nats.
    pub rise: f64,
    /// The reference's likeliest token, with its probability.
    pub reference: (u32, f64),
    /// The model's likeliest token, with its probability.
    pub model: (u32, f64),
}

/// The largest divergences, as many as wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worst {
    limit: usize,
    list: Vec<Divergence>,
}

impl Worst {
    /// Keeps at most `limit`.
    pub fn new(limit: usize) -> Self {
        Worst { limit, list: vec![] }
    }

    /// Those kept, the largest KL divergence first, of equal ones the first in the text. Exact agreement is never kept.
    pub fn list(&self) -> &[Divergence] {
        &self.list
    }

    /// Takes the divergences of a text in order.
    fn offer(&mut self, new: Divergence) {
        // A model that gives no number has lost the token altogether, whatever the sign of its NaN.
        let rank = |d: &Divergence| if d.kl.is_nan() { f64::INFINITY } else { d.kl };
        let place = self.list.partition_point(|kept| rank(kept) >= rank(&new));
        if place < self.limit && new.kl != 0.0 {
            self.list.truncate(self.limit - 1);
            self.list.insert(place, new);
        }
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Score of the model.
    pub score: Score,
    /// Against a reference, if there was one.
    pub closeness: Option<Closeness>,
}

/// Tokens of one step: bounds the memory for logits whatever the window.
pub(crate) const STEP: usize = 128;

/// Consecutive tokens of the text, behind what starts a text.
pub(crate) struct Window {
    tokens: Vec<u32>,
    /// Tokens in front that are not the text's.
    lead: usize,
    /// Index in the text of its first token here.
    begin: usize,
}

impl Window {
    fn place(&self, position: usize) -> Place {
        let context = position - self.lead;
        Place { index: self.begin + context, context }
    }

    /// Tokens of the text in it.
    pub fn count(&self) -> usize {
        self.tokens.len() - self.lead
    }

    /// What goes into a model step by step, and the tokens that each step predicts.
    pub fn steps(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        let predicted = self.tokens.get(1..).unwrap_or_default();
        let steps = self.tokens.chunks(STEP).zip(predicted.chunks(STEP));
        steps.map(|(inputs, targets)| (&inputs[..targets.len()], targets))
    }
}

/// The windows of a text: `ctx` tokens each, `start` in front if there is one.
pub(crate) fn windows(start: Option<u32>, ids: &[u32], ctx: usize) -> impl Iterator<Item = Window> {
    let lead = usize::from(start.is_some());
    let body = ctx.saturating_sub(lead).max(1);
    ids.chunks(body).enumerate().map(move |(n, chunk)| {
        let tokens = start.iter().chain(chunk).copied().collect();
        Window { tokens, lead, begin: n * body }
    })
}

/// Predicts every token of `ids` but the first of each window from those before it in the window. Windows have `ctx`
/// tokens, do not overlap, and begin with `start` if there is one. Against a reference, the `worst` largest divergences
/// are kept. `done` hears how many tokens are behind.
pub fn evaluate(
    model: &mut Engine,
    mut reference: Option<&mut Engine>,
    (start, ids): (Option<u32>, &[u32]),
    (ctx, worst): (usize, usize),
    mut done: impl FnMut(usize),
) -> Result<Evaluation, EngineError> {
    let closeness =
        reference.is_some().then(|| Closeness { worst: Worst::new(worst), ..Closeness::default() });
    let mut found = Evaluation { score: Score::default(), closeness };
    for window in windows(start, ids, ctx) {
        evaluate_window(model, reference.as_deref_mut(), &window, &mut found)?;
        done(window.begin + window.count());
    }
    Ok(found)
}

fn evaluate_window(
    model: &mut Engine,
    mut reference: Option<&mut Engine>,
    window: &Window,
    found: &mut Evaluation,
) -> Result<(), EngineError> {
    model.reset();
    if let Some(reference) = &mut reference {
        reference.reset();
    }
    for (step, (inputs, targets)) in window.steps().enumerate() {
        let logits = model.logits(inputs)?;
        let expected = reference.as_mut().map(|r| r.logits(inputs)).transpose()?;
        for (row, target) in targets.iter().enumerate() {
            let slice = |all: &[f32], vocab: usize| log_softmax(&all[row * vocab..][..vocab]);
            let ours = slice(&logits, model.vocab());
            add(&mut found.score, &ours, *target);
            if let (Some(closeness), Some(expected), Some(r)) = (&mut found.closeness, &expected, &reference)
            {
                let place = window.place(step * STEP + row + 1);
                compare(closeness, &slice(expected, r.vocab()), &ours, (place, *target));
            }
        }
    }
    Ok(())
}

fn add(score: &mut Score, log_probs: &[f64], target: u32) {
    score.tokens += 1;
    score.nll -= log_probs[target as usize];
}

fn compare(closeness: &mut Closeness, expected: &[f64], ours: &[f64], (place, target): (Place, u32)) {
    add(&mut closeness.reference, expected, target);
    let kl = divergence(expected, ours);
    closeness.kl += kl;
    let (reference, model) = (top(expected), top(ours));
    closeness.same_top += usize::from(reference == model);
    let rise = expected[target as usize] - ours[target as usize];
    let likeliest = |log_probs: &[f64], token: usize| (token as u32, log_probs[token].exp());
    let (reference, model) = (likeliest(expected, reference), likeliest(ours, model));
    closeness.worst.offer(Divergence { place, kl, rise, reference, model });
}

/// KL divergence of `ours` from `expected`, both log probabilities.
pub(crate) fn divergence(expected: &[f64], ours: &[f64]) -> f64 {
    expected.iter().zip(ours).map(|(p, q)| p.exp() * (p - q)).sum()
}

pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    logits.iter().map(|x| f64::from(x - max) - sum.ln()).collect()
}

fn top(log_probs: &[f64]) -> usize {
    (1..log_probs.len()).fold(0, |best, i| if log_probs[i] > log_probs[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_softmax_sums_to_one_and_survives_large_logits() {
        let log_probs = log_softmax(&[1000.0, 1001.0, 999.0]);
        assert!((log_probs.iter().map(|p| p.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(top(&log_probs), 1);
    }

    #[test]
    fn a_distribution_is_as_close_to_itself_as_can_be() {
        let log_probs = log_softmax(&[0.5, -1.0, 2.0]);
        let mut closeness = Closeness { worst: Worst::new(2), ..Closeness::default() };
        compare(&mut closeness, &log_probs, &log_probs, (Place::default(), 2));
        assert_eq!((closeness.kl, closeness.same_top, closeness.worst.list()), (0.0, 1, &[][..]));
        let other = log_softmax(&[2.0, -1.0, 0.5]);
        compare(&mut closeness, &log_probs, &other, (Place { index: 1, context: 1 }, 2));
        assert!(closeness.kl > 0.5 && closeness.same_top == 1);
        let worst = closeness.worst.list()[0];
        assert_eq!((worst.kl, worst.place.index), (closeness.kl, 1));
        assert_eq!((worst.reference.0, worst.model.0), (2, 0));
        assert!((worst.rise - 1.5).abs() < 1e-12 && worst.reference.1 == log_probs[2].exp());
    }

    fn kept(limit: usize, kls: &[f64]) -> Vec<usize> {
        let mut worst = Worst::new(limit);
        for (index, kl) in kls.iter().enumerate() {
            let place = Place { index, context: index };
            worst.offer(Divergence { place, kl: *kl, rise: 0.0, reference: (0, 1.0), model: (0, 1.0) });
        }
        worst.list().iter().map(|d| d.place.index).collect()
    }

    #[test]
    fn the_largest_divergences_are_kept_and_of_equal_ones_the_first() {
        assert_eq!(kept(3, &[1.0, 3.0, 2.0, 3.0, 2.0, 0.5]), [1, 3, 2]);
        assert_eq!(kept(9, &[1.0, 0.0, 2.0, 0.0]), [2, 0], "no more than differ");
        assert_eq!(kept(0, &[1.0]), [0; 0]);
        assert_eq!(kept(2, &[1.0, -f64::NAN, f64::NAN, 2.0]), [1, 2], "what is no number is worst");
    }

    #[test]
    fn places_count_the_tokens_of_the_text_alone() {
        let window = Window { tokens: vec![0, 7, 8], lead: 1, begin: 20 };
        assert_eq!(window.place(1), Place { index: 20, context: 0 });
        assert_eq!(window.place(2), Place { index: 21, context: 1 });
    }
}
