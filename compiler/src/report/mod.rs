//! What quantization did to a model, block by block: numbers for programs as JSON, and for people as a page.
//!
//! ```
//! use fireq::report::{Report, html};
//!
//! let report = Report { model: "stories".into(), recipe: "fireq".into(), ..Report::default() };
//! assert_eq!(Report::from_json(&report.to_json())?, report);
//! assert!(html(&report).starts_with("<!doctype html>"));
//! # Ok::<(), fireq::report::ReportError>(())
//! ```

mod json;
mod page;

use serde::{Deserialize, Serialize};

pub use json::ReportError;
pub use page::html;

/// What quantization of a model did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// The recipe's name.
    pub recipe: String,
    /// What was measured on.
    pub calibration: Calibration,
    /// The blocks, in the order in which they are computed.
    pub blocks: Vec<Block>,
}

/// The text that statistics and errors come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Where the text is from.
    pub text: String,
    /// Sequences taken from it.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens_each: usize,
    /// Time for everything.
    #[serde(deserialize_with = "json::number")]
    pub seconds: f64,
}

/// A part of the model that ends where it is added to the residual stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// What a person calls it, such as `layer 3 attention`.
    pub name: String,
    /// Its place among the model's blocks, from 0.
    pub index: usize,
    /// Time that it took.
    #[serde(deserialize_with = "json::number")]
    pub seconds: f64,
    /// Relative L2 error of its output on calibration data.
    #[serde(deserialize_with = "json::number")]
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

/// A place where scales were searched that make an activation easier to quantize.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Smoothing {
    /// Which: `qkv`, `o`, `gate-up`, `down`, `rope-pre` or `rope-post`.
    pub site: String,
    /// The form of scale that was chosen, or `off`.
    pub form: String,
    /// The chosen exponent or, before RoPE, constant.
    pub alpha: Option<f64>,
    /// The chosen constant after RoPE.
    pub beta: Option<f64>,
    /// The chosen number of channels per head that are scaled after RoPE.
    pub k: Option<usize>,
    /// Candidates that were tried.
    pub tried: usize,
    /// Relative L2 error of the block's output without it.
    #[serde(deserialize_with = "json::number")]
    pub error_before: f64,
    /// And with it.
    #[serde(deserialize_with = "json::number")]
    pub error_after: f64,
    /// Largest magnitude of each channel of the activation that is quantized, before scales moved.
    #[serde(deserialize_with = "json::numbers")]
    pub absmax_before: Vec<f32>,
    /// And after.
    #[serde(deserialize_with = "json::numbers")]
    pub absmax_after: Vec<f32>,
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
    #[serde(deserialize_with = "json::number")]
    pub error: f64,
    /// How many groups chose which clip ratio.
    pub clip: Vec<(f32, usize)>,
    /// The smallest outer scale.
    #[serde(deserialize_with = "json::number")]
    pub outer_min: f32,
    /// The largest outer scale.
    #[serde(deserialize_with = "json::number")]
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
    #[serde(deserialize_with = "json::number")]
    pub key_error: f64,
    /// Relative L2 error of values.
    #[serde(deserialize_with = "json::number")]
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
