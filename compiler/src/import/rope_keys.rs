//! `rope_scaling` of transformers 4, `rope_parameters` of transformers 5, checked.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ImportError;
use super::rope::{Rope, RopeScaling};

/// The keys, of whatever type.
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
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// The keys, with what else of a configuration their numbers depend on.
pub(super) struct Trained<'a> {
    pub raw: &'a RawRope,
    /// `rope_theta` beside them, or what stands for it.
    pub theta: Option<f64>,
    /// `max_position_embeddings`.
    pub positions: usize,
    /// `original_max_position_embeddings` beside them, which counts before the one among them.
    pub original: Option<f64>,
    pub head_dim: usize,
    /// `su` and `yarn` mean longrope, as Phi-3 first named it.
    pub old_names: bool,
}

impl Trained<'_> {
    /// The most positions that frequencies are made for.
    pub fn reach(&self) -> usize {
        let factor = self.raw.factor.filter(|factor| factor.is_finite()).unwrap_or(1.0);
        let stretched = match self.kind() {
            "yarn" => factor * self.original(),
            "dynamic" => factor * self.positions as f64,
            _ => 0.0,
        };
        self.positions.max(stretched.min(f64::from(1 << 24)) as usize)
    }

    fn kind(&self) -> &str {
        match self.raw.rope_type.as_deref().or(self.raw.legacy_type.as_deref()).unwrap_or("default") {
            "su" | "yarn" if self.old_names => "longrope",
            kind => kind,
        }
    }

    /// Context of the first training, where none is given that of the only one.
    fn original(&self) -> f64 {
        self.original.or(self.raw.original_max_position_embeddings).unwrap_or(self.positions as f64)
    }

    /// How many times longer contexts are than in the first training, where no factor is given.
    fn growth(&self) -> f64 {
        self.raw.factor.unwrap_or(self.positions as f64 / self.original())
    }
}

/// The rotary embedding that the keys describe, for sequences of up to `context` tokens.
pub(super) fn read(path: &Path, trained: &Trained<'_>, context: usize) -> Result<Rope, ImportError> {
    let raw = trained.raw;
    let refuse = |reason: String, hint: &str| Err(ImportError::unsupported(path, reason, hint));
    if let Some((layer_type, _)) = raw.other.iter().find(|(_, value)| value.is_object()) {
        let reason = format!("rope parameters for each kind of layer (`{layer_type}`) are not supported");
        return refuse(reason, "use a model with one set of rope parameters");
    }
    if let Some(part) = raw.partial_rotary_factor.filter(|part| *part != 1.0) {
        return Err(partial(path, part));
    }
    let Some(theta) = raw.rope_theta.or(trained.theta) else {
        return refuse(
            "`rope_theta` is missing".into(),
            "give it in config.json, as the model was trained with",
        );
    };
    if !(theta.is_finite() && theta > 1.0) {
        return refuse(format!("rope_theta is {theta}"), "it is a number above 1, such as 10000");
    }
    let numbers = Numbers { path, trained, context };
    let scaling = numbers.scaling()?;
    let factor = numbers.attention_factor(&scaling);
    let attention_factor = numbers.positive("attention_factor", Some(factor))?;
    Ok(Rope { theta, scaling, attention_factor })
}

/// Heads of which a part is rotated are refused.
pub(super) fn partial(path: &Path, part: f64) -> ImportError {
    let reason = format!("partial_rotary_factor {part} is not supported");
    ImportError::unsupported(path, reason, "use a model that rotates whole heads")
}

struct Numbers<'a> {
    path: &'a Path,
    trained: &'a Trained<'a>,
    context: usize,
}

impl Numbers<'_> {
    fn scaling(&self) -> Result<RopeScaling, ImportError> {
        let (raw, kind) = (self.trained.raw, self.trained.kind());
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: self.positive("factor", raw.factor)? }),
            "dynamic" => self.dynamic(),
            "yarn" => self.yarn(),
            "longrope" => self.longrope(),
            "llama3" => self.llama3(),
            _ => {
                let hint = "fireq computes the rope types default, linear, dynamic, yarn, longrope and llama3; another would \
                            give wrong text";
                Err(self.refused(format!("rope type `{kind}` is not supported"), hint))
            }
        }
    }

    fn dynamic(&self) -> Result<RopeScaling, ImportError> {
        let factor = self.positive("factor", self.trained.raw.factor)?;
        let (trained, context) = (self.trained.positions as f64, self.context as f64);
        if context > trained && self.trained.head_dim == 2 {
            let hint = "leave --context out: within max_position_embeddings nothing is stretched";
            return Err(self.refused("dynamic rope does not stretch heads of 2 channels".into(), hint));
        }
        Ok(RopeScaling::Dynamic { factor, trained, context })
    }

    fn yarn(&self) -> Result<RopeScaling, ImportError> {
        let raw = self.trained.raw;
        // Zero stands for the default, as in transformers.
        let or = |value: Option<f64>, default| value.filter(|x| *x != 0.0).unwrap_or(default);
        Ok(RopeScaling::Yarn {
            factor: self
                .positive("factor", raw.factor.or(self.trained.original.map(|_| self.trained.growth())))?,
            original: self.original()?,
            fast: self.positive("beta_fast", Some(or(raw.beta_fast, 32.0)))?,
            slow: self.positive("beta_slow", Some(or(raw.beta_slow, 1.0)))?,
            truncate: raw.truncate.unwrap_or(true),
        })
    }

    fn longrope(&self) -> Result<RopeScaling, ImportError> {
        let (raw, original) = (self.trained.raw, self.original()?);
        let short = self.list("short_factor", raw.short_factor.as_deref())?;
        let long = self.list("long_factor", raw.long_factor.as_deref())?;
        let beyond = self.context as f64 > original;
        Ok(RopeScaling::LongRope {
            factors: if beyond { long } else { short }.to_vec(),
            long: beyond,
            original,
        })
    }

    fn llama3(&self) -> Result<RopeScaling, ImportError> {
        let raw = self.trained.raw;
        let factor = self.positive("factor", raw.factor)?;
        let low = self.positive("low_freq_factor", raw.low_freq_factor)?;
        let high = self.positive("high_freq_factor", raw.high_freq_factor)?;
        if high <= low {
            let reason = format!("high_freq_factor {high} is not above low_freq_factor {low}");
            return Err(self.refused(reason, "correct the two factors; Llama 3.1 has 4 and 1"));
        }
        Ok(RopeScaling::Llama3 { factor, low, high, original: self.original()? })
    }

    /// The factor that a configuration gives, or that its type implies.
    fn attention_factor(&self, scaling: &RopeScaling) -> f64 {
        let raw = self.trained.raw;
        let growth = self.trained.growth();
        let magnitude = |scale: f64| if growth <= 1.0 { 1.0 } else { 0.1 * scale * growth.ln() + 1.0 };
        let given = |value: Option<f64>| value.filter(|x| *x != 0.0);
        match scaling {
            RopeScaling::Yarn { .. } => raw.attention_factor.unwrap_or_else(|| {
                match given(raw.mscale).zip(given(raw.mscale_all_dim)) {
                    Some((scale, all)) => magnitude(scale) / magnitude(all),
                    None => magnitude(1.0),
                }
            }),
            RopeScaling::LongRope { original, .. } => raw.attention_factor.unwrap_or_else(|| {
                if growth <= 1.0 { 1.0 } else { (1.0 + growth.ln() / original.ln()).sqrt() }
            }),
            _ => 1.0,
        }
    }

    fn original(&self) -> Result<f64, ImportError> {
        self.positive("original_max_position_embeddings", Some(self.trained.original()))
    }

    /// A factor for each pair of channels.
    fn list<'v>(&self, key: &str, value: Option<&'v [f64]>) -> Result<&'v [f64], ImportError> {
        let pairs = self.trained.head_dim / 2;
        let hint = format!(
            "rope type longrope needs `{key}`, a positive number for each of {pairs} pairs of channels"
        );
        let Some(list) = value else {
            return Err(self.refused(format!("rope parameter `{key}` is missing"), &hint));
        };
        if list.len() != pairs {
            return Err(self.refused(format!("rope parameter `{key}` has {} numbers", list.len()), &hint));
        }
        match list.iter().find(|x| !(x.is_finite() && **x > 0.0)) {
            Some(x) => Err(self.refused(format!("rope parameter `{key}` has {x}"), &hint)),
            None => Ok(list),
        }
    }

    fn positive(&self, key: &str, value: Option<f64>) -> Result<f64, ImportError> {
        let hint = format!("rope type {} needs `{key}`, a positive number", self.trained.kind());
        match value {
            Some(x) if x.is_finite() && x > 0.0 => Ok(x),
            Some(x) => Err(self.refused(format!("rope parameter `{key}` is {x}"), &hint)),
            None => Err(self.refused(format!("rope parameter `{key}` is missing"), &hint)),
        }
    }

    fn refused(&self, reason: String, hint: &str) -> ImportError {
        ImportError::unsupported(self.path, reason, hint)
    }
}
