//! From logits to the next token: the same token on every device.
//!
//! A random token is the one with the largest logit after Gumbel noise has been added to each, which picks every token
//! with its probability and needs neither sums nor order. The noise of a token depends on the seed, the step and the token
//! ([`noise`]). Top-p keeps the likeliest tokens by weights that are whole numbers, whose sums are exact in any order.

mod noise;

use fireq_kernels::cuda::params::Draw;
use noise::{gumbel, philox, weight};

/// How tokens are picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most likely token; the lowest id among equals.
    Greedy,
    /// A random token: `softmax(logits / temperature)`, cut to the likeliest tokens that together have `top_p`.
    Random {
        /// Above 0; 1 leaves the distribution as the model gives it.
        temperature: f32,
        /// In (0, 1]; 1 keeps every token. Tokens as likely as the last that is kept are kept with it.
        top_p: f32,
        /// The same seed and logits give the same tokens.
        seed: u64,
    },
}

/// Temperatures up to this one take the most likely token.
const COLDEST: f32 = 1e-30;

impl Sampling {
    /// What decides the token of a step, as kernels take it.
    pub fn draw(self, step: u32) -> Draw {
        match self {
            // Of logits that are so much apart the largest is certain, and products with the scale stay finite otherwise.
            Sampling::Random { temperature, top_p, seed } if temperature > COLDEST => Draw {
                seed,
                mass: if top_p < 1.0 { (f64::from(top_p) * 2f64.powi(64)) as u64 } else { 0 },
                step,
                scale: std::f32::consts::LOG2_E / temperature,
            },
            _ => Draw::default(),
        }
    }
}

/// Picks tokens one after another.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    step: u32,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    pub fn new(sampling: Sampling) -> Self {
        Sampler { sampling, step: 0 }
    }

    /// What decides the next token.
    pub fn draw(&mut self) -> Draw {
        let draw = self.sampling.draw(self.step);
        self.step = self.step.wrapping_add(1);
        draw
    }

    /// The next token for these logits.
    pub fn pick(&mut self, logits: &[f32]) -> u32 {
        pick(logits, &self.draw())
    }
}

/// The token that a draw takes from finite logits, at least one: the first of those whose score is largest.
pub fn pick(logits: &[f32], draw: &Draw) -> u32 {
    if draw.scale <= 0.0 {
        return largest(logits.iter().copied());
    }
    let kept = kept(logits, draw);
    let noise = (0..).flat_map(|four| philox([four, draw.step, 0, 0], draw.seed)).map(gumbel);
    let score = |(logit, noise): (&f32, f32)| {
        if kept(*logit) { logit * draw.scale + noise } else { f32::NEG_INFINITY }
    };
    largest(logits.iter().zip(noise).map(score))
}

/// Whether a draw keeps tokens of a logit: the likeliest whose weights add up to its share of all.
fn kept(logits: &[f32], draw: &Draw) -> impl Fn(f32) -> bool {
    let (most, scale) = (logits.iter().copied().fold(f32::NEG_INFINITY, f32::max), draw.scale);
    let weight = move |logit: f32| weight((most - logit) * scale);
    let mut least = 0;
    if draw.mass > 0 {
        let mut weights: Vec<u32> = logits.iter().map(|l| weight(*l)).filter(|w| *w > 0).collect();
        weights.sort_unstable();
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut wanted = (u128::from(total) * u128::from(draw.mass)).div_ceil(1 << 64) as u64;
        let last = weights.iter().rev().find(|w| {
            wanted = wanted.saturating_sub(u64::from(**w));
            wanted == 0
        });
        least = *last.unwrap_or(&0);
    }
    move |logit| least == 0 || weight(logit) >= least
}

fn largest(scores: impl Iterator<Item = f32>) -> u32 {
    let better = |best: (usize, f32), next: (usize, f32)| if next.1 > best.1 { next } else { best };
    scores.enumerate().reduce(better).map_or(0, |best| best.0 as u32)
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
        const DRAWS: usize = 40_000;
        let logits: Vec<f32> = (0..9).map(|i| (i as f32 * 1.7).sin() * 2.0).collect();
        let temperature = 0.7;
        let mut sampler = Sampler::new(Sampling::Random { temperature, top_p: 1.0, seed: 7 });
        let mut counts = [0f64; 9];
        for _ in 0..DRAWS {
            counts[sampler.pick(&logits) as usize] += 1.0;
        }
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        // χ² with 8 degrees of freedom is below 26 in all but one case of a thousand.
        let deviation = |(count, weight): (&f64, &f64)| {
            let expected = weight / total * DRAWS as f64;
            (count - expected).powi(2) / expected
        };
        let chi_squared: f64 = counts.iter().zip(&weights).map(deviation).sum();
        assert!(chi_squared < 26.0, "{chi_squared}: {counts:?}");
    }

    #[test]
    fn top_p_keeps_the_likeliest_and_the_seed_decides() {
        let logits = [3.0, 0.0, 0.1, 2.9];
        let tokens = |seed| {
            let mut s = Sampler::new(Sampling::Random { temperature: 1.0, top_p: 0.8, seed });
            (0..200).map(|_| s.pick(&logits)).collect::<Vec<_>>()
        };
        let drawn = tokens(3);
        assert!(drawn.contains(&0) && drawn.contains(&3) && drawn.iter().all(|t| matches!(t, 0 | 3)));
        assert_eq!(drawn, tokens(3));
        assert_ne!(drawn, tokens(4));
    }

    #[test]
    fn top_p_counts_whole_tokens_and_keeps_equals_together() {
        // Halves, quarters, eighths: weights add up exactly.
        let ln2 = std::f32::consts::LN_2;
        let logits = [-3.0 * ln2, -2.0 * ln2, -3.0 * ln2, -ln2];
        let keeps = |top_p| {
            let draw = Sampling::Random { temperature: 1.0, top_p, seed: 0 }.draw(0);
            logits.map(kept(&logits, &draw))
        };
        assert_eq!(keeps(0.4), [false, false, false, true]);
        assert_eq!(keeps(0.6), [false, true, false, true]);
        assert_eq!(keeps(0.8), [true; 4]);
        assert_eq!(keeps(1.0), [true; 4]);
    }

    #[test]
    fn low_temperature_is_greedy() {
        for temperature in [1e-3, 1e-20, 1e-44] {
            for top_p in [1.0, 0.5] {
                let mut sampler = Sampler::new(Sampling::Random { temperature, top_p, seed: 1 });
                assert!((0..50).all(|_| sampler.pick(&[0.0, 1.0, 0.9, -1e4]) == 1), "{temperature}");
            }
        }
    }
}
