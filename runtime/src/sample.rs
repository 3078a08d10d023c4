//! From logits to the next token.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How tokens are picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most likely token; the lowest id among equals.
    Greedy,
    /// A random token: `softmax(logits / temperature)`, cut to the likeliest tokens that together have `top_p`.
    Random {
        /// Above 0; 1 leaves the distribution as the model gives it.
        temperature: f32,
        /// In (0, 1]; 1 keeps every token.
        top_p: f32,
        /// The same seed and logits give the same tokens.
        seed: u64,
    },
}

/// Picks tokens one after another.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    pub fn new(sampling: Sampling) -> Self {
        let seed = if let Sampling::Random { seed, .. } = sampling { seed } else { 0 };
        Sampler { sampling, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next token for these logits.
    pub fn pick(&mut self, logits: &[f32]) -> u32 {
        match self.sampling {
            Sampling::Greedy => argmax(logits),
            Sampling::Random { temperature, top_p, .. } => {
                let draw = self.random.random::<f64>();
                pick_at(logits, f64::from(temperature), f64::from(top_p), draw)
            }
        }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).reduce(better).unwrap_or(0) as u32
}

/// The token at fraction `draw` of the cumulated probabilities, likeliest first.
fn pick_at(logits: &[f32], temperature: f64, top_p: f64, draw: f64) -> u32 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let weight = |l: f32| ((f64::from(l) - max) / temperature).exp();
    let mut weights: Vec<(usize, f64)> = logits.iter().map(|l| weight(*l)).enumerate().collect();
    weights.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let total: f64 = weights.iter().map(|w| w.1).sum();
    let mut kept = 0.0;
    let count = weights.iter().take_while(|w| {
        let keep = kept < top_p * total;
        kept += w.1;
        keep
    });
    let count = count.count().max(1).min(weights.len());
    let kept: f64 = weights[..count].iter().map(|w| w.1).sum();
    let mut left = draw * kept;
    let chosen = weights[..count].iter().find(|w| {
        left -= w.1;
        left < 0.0
    });
    chosen.or(weights[..count].last()).map_or(0, |w| w.0 as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampler::new(Sampling::Greedy).pick(&[0.5, 2.0, 2.0, -1.0]), 1);
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let logits = [0.0f32, 1.0, 2.0];
        let mut sampler = Sampler::new(Sampling::Random { temperature: 1.0, top_p: 1.0, seed: 7 });
        let mut counts = [0f64; 3];
        for _ in 0..20_000 {
            counts[sampler.pick(&logits) as usize] += 1.0 / 20_000.0;
        }
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for (count, logit) in counts.iter().zip(logits) {
            assert!((count - f64::from(logit).exp() / total).abs() < 0.012, "{counts:?}");
        }
    }

    #[test]
    fn top_p_keeps_the_likeliest_and_the_seed_decides() {
        let logits = [3.0, 0.0, 0.1, 2.9];
        let sampling = Sampling::Random { temperature: 1.0, top_p: 0.8, seed: 3 };
        let tokens = |n| {
            let mut s = Sampler::new(sampling);
            (0..n).map(|_| s.pick(&logits)).collect::<Vec<_>>()
        };
        assert!(tokens(200).iter().all(|t| matches!(t, 0 | 3)));
        assert_eq!(tokens(50), tokens(50));
    }

    #[test]
    fn low_temperature_is_greedy() {
        let mut sampler = Sampler::new(Sampling::Random { temperature: 1e-3, top_p: 1.0, seed: 1 });
        assert!((0..50).all(|_| sampler.pick(&[0.0, 1.0, 0.9]) == 1));
    }
}
