//! Rotary position embedding: frequencies with the model's scaling folded in.

use std::path::Path;

use fireq_ir::DType;
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ImportError;

/// The rotary embedding of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// How frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All by the same factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Long wavelengths by a factor, short ones not at all, those between by a mixture (Llama 3.1).
    Llama3 {
        /// The factor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are stretched fully.
        low: f64,
        /// Wavelengths below `original / high` are not stretched.
        high: f64,
        /// Context of the first training, in tokens.
        original: f64,
    },
}

impl Rope {
    /// One frequency per pair of channels, `head_dim / 2` of them, in f32 as transformers computes them. Powers are
    /// taken in f64 and rounded, so that every machine gets the same bits. At last they are rounded to `dtype`.
    pub fn inv_freq(&self, head_dim: usize, dtype: DType) -> Vec<f32> {
        let base = f64::from(self.theta as f32);
        let exponent = |i: usize| f64::from((2 * i) as f32 / head_dim as f32);
        let plain = (0..head_dim / 2).map(|i| 1.0 / base.powf(exponent(i)) as f32);
        plain.map(|f| round(self.scaling.apply(f), dtype)).collect()
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
    fn apply(&self, freq: f32) -> f32 {
        match *self {
            RopeScaling::None => freq,
            RopeScaling::Linear { factor } => freq / factor as f32,
            RopeScaling::Llama3 { factor, low, high, original } => {
                let wavelength = std::f64::consts::TAU as f32 / freq;
                if wavelength > (original / low) as f32 {
                    return freq / factor as f32;
                }
                if wavelength < (original / high) as f32 {
                    return freq;
                }
                let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
                (1.0 - smooth) * freq / factor as f32 + smooth * freq
            }
        }
    }
}

/// `rope_scaling` of transformers 4, `rope_parameters` of transformers 5.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawRope {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    legacy_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

const THETA: f64 = 10000.0;

/// The rotary embedding that the keys describe; `theta` is transformers 4's key beside `rope_scaling`.
pub(super) fn read(path: &Path, theta: Option<f64>, raw: &RawRope) -> Result<Rope, ImportError> {
    let refuse = |reason: String, hint: &str| Err(ImportError::unsupported(path, reason, hint));
    if let Some((layer_type, _)) = raw.other.iter().find(|(_, value)| value.is_object()) {
        let reason = format!("rope parameters for each kind of layer (`{layer_type}`) are not supported");
        return refuse(reason, "use a model with one set of rope parameters");
    }
    if let Some(part) = raw.partial_rotary_factor.filter(|part| *part != 1.0) {
        let reason = format!("partial_rotary_factor {part} is not supported");
        return refuse(reason, "use a model that rotates whole heads");
    }
    let theta = raw.rope_theta.or(theta).unwrap_or(THETA);
    if !(theta.is_finite() && theta > 1.0) {
        return refuse(format!("rope_theta is {theta}"), "it is a number above 1, such as 10000");
    }
    let kind = raw.rope_type.as_deref().or(raw.legacy_type.as_deref()).unwrap_or("default");
    let number = |key: &str, value: Option<f64>| positive(path, kind, key, value);
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: number("factor", raw.factor)? },
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor", raw.factor)?,
            low: number("low_freq_factor", raw.low_freq_factor)?,
            high: number("high_freq_factor", raw.high_freq_factor)?,
            original: number("original_max_position_embeddings", raw.original_max_position_embeddings)?,
        },
        _ => {
            let hint =
                "fireq computes the rope types default, linear and llama3; another would give wrong text";
            return refuse(format!("rope type `{kind}` is not supported"), hint);
        }
    };
    match scaling {
        RopeScaling::Llama3 { low, high, .. } if high <= low => {
            let reason = format!("high_freq_factor {high} is not above low_freq_factor {low}");
            refuse(reason, "correct the two factors; Llama 3.1 has 4 and 1")
        }
        scaling => Ok(Rope { theta, scaling }),
    }
}

fn positive(path: &Path, kind: &str, key: &str, value: Option<f64>) -> Result<f64, ImportError> {
    let hint = format!("rope type {kind} needs `{key}`, a positive number");
    match value {
        Some(x) if x.is_finite() && x > 0.0 => Ok(x),
        Some(x) => Err(ImportError::unsupported(path, format!("rope parameter `{key}` is {x}"), hint)),
        None => Err(ImportError::unsupported(path, format!("rope parameter `{key}` is missing"), hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_from_one_and_linear_scaling_divides_them() {
        let plain = Rope { theta: 10000.0, scaling: RopeScaling::None }.inv_freq(4, DType::F32);
        assert_eq!(plain, [1.0, 0.01]);
        let linear =
            Rope { theta: 10000.0, scaling: RopeScaling::Linear { factor: 4.0 } }.inv_freq(4, DType::F32);
        assert_eq!(linear, [0.25, 0.0025]);
    }

    #[test]
    fn llama3_scaling_keeps_short_wavelengths_and_divides_long_ones() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let plain = Rope { theta: 500000.0, scaling: RopeScaling::None }.inv_freq(128, DType::F32);
        let scaled = Rope { theta: 500000.0, scaling }.inv_freq(128, DType::F32);
        assert_eq!(scaled[..20], plain[..20]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        let mixed = plain.iter().zip(&scaled).filter(|(p, s)| **s < **p && **s > **p / 8.0).count();
        assert!(mixed > 0, "some wavelengths lie between");
    }
}
