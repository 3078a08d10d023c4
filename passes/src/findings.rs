//! What calibrated passes found out, block by block: for reports.

use serde::{Deserialize, Deserializer, Serialize};

/// A part of the model that ends where it is added to the residual stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The first of its weights.
    pub name: String,
    /// L2 error of its output on calibration data, in units of what it adds to the residual stream; NaN where it was not
    /// measured.
    #[serde(deserialize_with = "number")]
    pub error: f64,
    /// The same with round to nearest and no smoothing.
    pub error_rtn: Option<f64>,
    /// Relative L2 error of the residual stream after it, against the unquantized model.
    pub stream_error: Option<f64>,
    /// The sites where scales move from activations to weights.
    pub smoothing: Vec<Smoothing>,
    /// The quantized weights.
    pub weights: Vec<Weight>,
    /// Its cache, if it has one.
    pub kv: Option<Kv>,
    /// What was wanted and not done.
    pub refused: Vec<Refused>,
}

impl Block {
    /// A block of which no error is known.
    pub(crate) fn unmeasured(name: &str) -> Self {
        Block { name: name.into(), error: f64::NAN, ..Block::default() }
    }

    /// Adds a site that was searched; one that was found before stays found.
    pub(crate) fn searched(&mut self, site: Smoothing) {
        match self.smoothing.iter_mut().find(|known| known.site == site.site) {
            Some(known) if site.form != "off" => *known = site,
            Some(_) => {}
            None => self.smoothing.push(site),
        }
    }
}

/// A place where scales were searched that make an activation easier to quantize.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Smoothing {
    /// The first weight that reads the activation, or the cache that keys go to and the side of RoPE: `k.0 rope-pre`.
    pub site: String,
    /// The form of scale that was chosen, or `off`.
    pub form: String,
    /// The chosen exponent, or the constant of a formula.
    pub alpha: Option<f64>,
    /// The same after RoPE.
    pub beta: Option<f64>,
    /// The chosen number of channels per head that are scaled after RoPE.
    pub k: Option<usize>,
    /// Candidates that were tried.
    pub tried: usize,
    /// Relative L2 error, under quantization, of what the scales can change without leaving the block: outputs of the linears
    /// that read the activation, or of attention. Without scales.
    #[serde(deserialize_with = "number")]
    pub error_before: f64,
    /// And with it.
    #[serde(deserialize_with = "number")]
    pub error_after: f64,
    /// Largest magnitude of each channel of the activation that is quantized, before scales moved.
    #[serde(deserialize_with = "numbers")]
    pub absmax_before: Vec<f32>,
    /// And after.
    #[serde(deserialize_with = "numbers")]
    pub absmax_after: Vec<f32>,
}

impl Smoothing {
    /// A site for which candidates were tried, and the best of them, if it was worth it, with its error.
    pub(crate) fn searched(
        site: &str,
        tried: usize,
        error_before: f64,
        absmax_before: Vec<f32>,
        found: Option<(f64, Smoothing)>,
    ) -> Self {
        let off = || (error_before, Smoothing { form: "off".into(), ..Smoothing::default() });
        let (error_after, chosen) = found.unwrap_or_else(off);
        Smoothing { site: site.into(), tried, error_before, error_after, absmax_before, ..chosen }
    }

    /// In a line.
    pub(crate) fn note(&self) -> String {
        let alpha = self.alpha.map_or_else(String::new, |alpha| format!(", alpha {alpha}"));
        format!("{}{alpha}: error {:.4} to {:.4}", self.form, self.error_before, self.error_after)
    }
}

/// A quantized weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    /// Name of the tensor.
    pub name: String,
    /// How its codes were chosen.
    pub method: String,
    /// Neighbours that share a scale.
    pub group: usize,
    /// Output channels.
    pub rows: usize,
    /// Input channels.
    pub cols: usize,
    /// Relative error, input channels weighted as calibration data uses them.
    #[serde(deserialize_with = "number")]
    pub error: f64,
    /// How many groups chose which clip ratio.
    pub clip: Vec<(f32, usize)>,
    /// The smallest outer scale.
    #[serde(deserialize_with = "number")]
    pub outer_min: f32,
    /// The largest outer scale.
    #[serde(deserialize_with = "number")]
    pub outer_max: f32,
    /// Groups whose scale was rounded to zero or a subnormal number.
    pub underflow: usize,
}

/// A quantized cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kv {
    /// How scales are chosen.
    pub fit: String,
    /// Relative L2 error of keys.
    #[serde(deserialize_with = "number")]
    pub key_error: f64,
    /// Relative L2 error of values.
    #[serde(deserialize_with = "number")]
    pub value_error: f64,
}

/// A site where nothing was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub site: String,
    /// Why not.
    pub reason: String,
}

/// JSON has no NaN: `null` is one where there must be a number.
fn number<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + From<f32>,
{
    Ok(Option::deserialize(input)?.unwrap_or(f32::NAN.into()))
}

fn numbers<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<f32>, D::Error> {
    let numbers = Vec::<Option<f32>>::deserialize(input)?;
    Ok(numbers.into_iter().map(|x| x.unwrap_or(f32::NAN)).collect())
}
