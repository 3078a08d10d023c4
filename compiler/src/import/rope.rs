//! Rotary position embedding: frequencies with the model's scaling folded in, as transformers 5 computes them.

use std::f64::consts::TAU;

use fireq_ir::DType;
use half::{bf16, f16};

/// The rotary embedding of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// How frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
    /// What sines and cosines are multiplied by, 1 for most. Queries and keys both take it, so that scores have its square, and only
    /// scores: the graph has the square in the scale of attention ([`Rope::score_factor`]), which is the same mathematics. So the
    /// codes of a quantized cache are what they are without it, as those of rotated queries in FP8 are, whose scales are relative to
    /// their rows; E4M3 scales of keys are not moved to another rounding; and no kernel of any backend has one more product to do.
    pub attention_factor: f64,
}

/// How frequencies are stretched for long contexts. Contexts and wavelengths are in tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All by the same factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// By a larger base, for contexts beyond the trained one. Transformers grows the base with each sequence and leaves what is in the
    /// cache as it was; here one base serves a whole cache, that of the context a model is imported for. A sequence that fills it has
    /// the frequencies of transformers; contexts up to the trained one are not stretched.
    Dynamic {
        /// The factor.
        factor: f64,
        /// Context of the training.
        trained: f64,
        /// Context that the model is imported for.
        context: f64,
    },
    /// Channels that turn seldom within the first training's context by a factor, those that turn often not at all, those between by
    /// a mixture (`yarn`).
    Yarn {
        /// The factor.
        factor: f64,
        /// Context of the first training.
        original: f64,
        /// Turns within the original context above which nothing is stretched.
        fast: f64,
        /// Turns within the original context below which all is stretched.
        slow: f64,
        /// Round the channels where the mixture begins and ends to whole ones.
        truncate: bool,
    },
    /// Each pair of channels by a factor of its own. Of a checkpoint's two lists one serves a whole cache, as keys of both would not
    /// fit together: the short one where the context that the model is imported for is within the first training's, else the long one.
    LongRope {
        /// The chosen list, one number for each pair.
        factors: Vec<f64>,
        /// True where it is the long one.
        long: bool,
        /// Context of the first training.
        original: f64,
    },
    /// Long wavelengths by a factor, short ones not at all, those between by a mixture (Llama 3.1).
    Llama3 {
        /// The factor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are stretched fully.
        low: f64,
        /// Wavelengths below `original / high` are not stretched.
        high: f64,
        /// Context of the first training.
        original: f64,
    },
}

impl Rope {
    /// One frequency per pair of channels, `head_dim / 2` of them, in f32 as transformers computes them. Powers are
    /// taken in f64 and rounded, so that every machine gets the same bits. At last they are rounded to `dtype`.
    pub fn inv_freq(&self, head_dim: usize, dtype: DType) -> Vec<f32> {
        let base = self.scaling.base(self.theta, head_dim as f64) as f32;
        let exponent = |i: usize| f64::from((2 * i) as f32 / head_dim as f32);
        let powers = (0..head_dim / 2).map(|i| f64::from(base).powf(exponent(i)));
        let frequency = |(i, power)| self.scaling.frequency(i, power, base, head_dim);
        powers.enumerate().map(frequency).map(|f| round(f, dtype)).collect()
    }

    /// What scores of attention are multiplied by.
    pub fn score_factor(&self) -> f64 {
        self.attention_factor * self.attention_factor
    }

    /// Whether it is another than of the default type.
    pub fn is_stretched(&self) -> bool {
        self.scaling != RopeScaling::None
    }

    /// Type and numbers, on a line; of types that depend on it, what the context chose.
    pub fn describe(&self) -> String {
        let scaling = match &self.scaling {
            RopeScaling::None => "default".into(),
            RopeScaling::Linear { factor } => format!("linear, factor {factor}"),
            RopeScaling::Dynamic { factor, trained, context } if context > trained => {
                format!("dynamic, factor {factor}, its base for a context of {context} tokens")
            }
            RopeScaling::Dynamic { trained, .. } => format!("dynamic, not stretched within {trained} tokens"),
            RopeScaling::Yarn { factor, original, .. } => {
                format!("yarn, factor {factor} over {original} tokens")
            }
            RopeScaling::LongRope { long: true, original, .. } => {
                format!("longrope, long factors, as the context is beyond {original} tokens")
            }
            RopeScaling::LongRope { original, .. } => {
                format!("longrope, short factors, as the context is within {original} tokens")
            }
            RopeScaling::Llama3 { factor, original, .. } => {
                format!("llama3, factor {factor} over {original} tokens")
            }
        };
        let factor = self.attention_factor;
        let scores = if factor == 1.0 { String::new() } else { format!(", attention factor {factor:.4}") };
        format!("{scaling}, base {}{scores}", self.theta)
    }
}

fn round(freq: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(freq).to_f32(),
        DType::BF16 => bf16::from_f32(freq).to_f32(),
        _ => freq,
    }
}

impl RopeScaling {
    /// The base, stretched.
    fn base(&self, theta: f64, dim: f64) -> f64 {
        match *self {
            RopeScaling::Dynamic { factor, trained, context } if context > trained => {
                theta * (factor * context / trained - (factor - 1.0)).powf(dim / (dim - 2.0))
            }
            _ => theta,
        }
    }

    /// The frequency of pair `i`, of which `power` is the wavelength over 2π without stretching.
    fn frequency(&self, i: usize, power: f64, base: f32, dim: usize) -> f32 {
        let plain = 1.0 / power as f32;
        match self {
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain,
            RopeScaling::Linear { factor } => plain / *factor as f32,
            RopeScaling::LongRope { factors, .. } => 1.0 / (factors[i] as f32 * power as f32),
            RopeScaling::Yarn { factor, original, fast, slow, truncate } => {
                let turns = [*fast, *slow].map(|turns| pair_of(turns, *original, f64::from(base), dim));
                let stretched = 1.0 / (*factor as f32 * power as f32);
                let kept = 1.0 - ramp(i, turns, dim, *truncate);
                stretched * (1.0 - kept) + plain * kept
            }
            RopeScaling::Llama3 { factor, low, high, original } => {
                llama3(plain, *factor, [*low, *high], *original)
            }
        }
    }
}

/// The pair of channels, in fractions, that turns so often within a context.
fn pair_of(turns: f64, context: f64, base: f64, dim: usize) -> f64 {
    dim as f64 * (context / (turns * TAU)).ln() / (2.0 * base.ln())
}

/// How far pair `i` is on its way between two pairs, 0 to 1.
fn ramp(i: usize, [low, high]: [f64; 2], dim: usize, truncate: bool) -> f32 {
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    // Pairs that are one make a step.
    let width = if low == high { 0.001 } else { high - low };
    ((i as f32 - low as f32) / width as f32).clamp(0.0, 1.0)
}

fn llama3(freq: f32, factor: f64, [low, high]: [f64; 2], original: f64) -> f32 {
    let wavelength = TAU as f32 / freq;
    if wavelength > (original / low) as f32 {
        return freq / factor as f32;
    }
    if wavelength < (original / high) as f32 {
        return freq;
    }
    let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * freq / factor as f32 + smooth * freq
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(theta: f64, scaling: RopeScaling) -> Rope {
        Rope { theta, scaling, attention_factor: 1.0 }
    }

    #[test]
    fn frequencies_fall_from_one_and_linear_scaling_divides_them() {
        let plain = rope(10000.0, RopeScaling::None).inv_freq(4, DType::F32);
        assert_eq!(plain, [1.0, 0.01]);
        let linear = rope(10000.0, RopeScaling::Linear { factor: 4.0 }).inv_freq(4, DType::F32);
        assert_eq!(linear, [0.25, 0.0025]);
    }

    #[test]
    fn dynamic_scaling_begins_behind_the_trained_context() {
        let at = |context| RopeScaling::Dynamic { factor: 2.0, trained: 64.0, context };
        let [plain, within, beyond] = [RopeScaling::None, at(64.0), at(96.0)]
            .map(|scaling| rope(10000.0, scaling).inv_freq(8, DType::F32));
        assert_eq!(within, plain);
        assert_eq!(beyond[0], 1.0);
        assert!(beyond[1..].iter().zip(&plain[1..]).all(|(beyond, plain)| beyond < plain));
    }

    #[test]
    fn llama3_scaling_keeps_short_wavelengths_and_divides_long_ones() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        mixes(&scaling, 20, 8.0);
    }

    #[test]
    fn yarn_keeps_what_turns_often_and_divides_what_turns_seldom() {
        let scaling =
            RopeScaling::Yarn { factor: 4.0, original: 8192.0, fast: 32.0, slow: 1.0, truncate: true };
        mixes(&scaling, 17, 4.0);
    }

    /// The first `kept` frequencies are as without scaling, the last is divided, and some are between.
    fn mixes(scaling: &RopeScaling, kept: usize, factor: f32) {
        let plain = rope(500000.0, RopeScaling::None).inv_freq(128, DType::F32);
        let scaled = rope(500000.0, scaling.clone()).inv_freq(128, DType::F32);
        let near = |a: f32, b: f32| (a / b - 1.0).abs() < 1e-6;
        assert!(scaled[..kept].iter().zip(&plain).all(|(a, b)| near(*a, *b)));
        assert!(near(scaled[63], plain[63] / factor));
        let mixed =
            plain.iter().zip(&scaled).filter(|(p, s)| **s < **p * 0.999 && **s > **p / factor * 1.001);
        assert!(mixed.count() > 0, "some wavelengths lie between");
    }
}
