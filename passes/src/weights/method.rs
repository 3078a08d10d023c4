//! What can be chosen about the quantization of a weight.

use std::str::FromStr;

use serde::Deserialize;

/// Clip ratios an eighth of an octave apart, as far as the steps of an E4M3 scale: finer ones find the same scales.
pub(crate) const CLIPS: [f32; 8] = [1.0, 0.92, 0.84, 0.77, 0.71, 0.65, 0.6, 0.55];

/// How a weight is quantized (FireQ section 2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Method {
    /// What outer scales cover.
    pub outer: Outer,
    /// To what a weight is rounded.
    pub rounding: Rounding,
    /// Scales may be negative, so that the extreme of a group has the code −8.
    pub signed: bool,
    /// Shares of a group's extreme that its largest code stands for. With several, the one with the least weighted error is
    /// chosen for each group, under either sign where scales are `signed`; none stands for 1.
    pub clips: Vec<f32>,
    /// Errors are made up for by channels that are not yet rounded, as in GPTQ; needs a Hessian.
    pub compensate: bool,
    /// In which order channels are rounded, if they compensate. Their place in storage is the same.
    pub order: Order,
    /// What is added to the diagonal of the Hessian, in units of its mean.
    pub damping: f32,
    /// The share of what errors before a linear changed in its inputs that its weights make up for, if they compensate.
    pub catch_up: f32,
}

/// To what a weight is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// The nearest integer multiple of the scale, as the paper does.
    Integer,
    /// The nearest entry of the table that kernels decode with.
    Entry,
}

/// What an outer scale covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outer {
    /// A row: its largest group scale is put at the top of the range that is used.
    Row,
    /// The whole weight, 1/p for the paper's power of two p.
    Tensor,
}

/// In which order channels are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they are stored.
    Natural,
    /// Groups, and channels inside of each, by falling E\[x²\].
    ByDiagonal,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "moment" => Ok(Order::ByDiagonal),
            "stored" => Ok(Order::Natural),
            _ => Err("it is moment or stored".into()),
        }
    }
}

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f32")]
pub(crate) struct Share(pub f32);

impl TryFrom<f32> for Share {
    type Error = String;

    fn try_from(number: f32) -> Result<Self, String> {
        let inside = (0.0..=1.0).contains(&number);
        inside.then_some(Share(number)).ok_or_else(|| "a number from 0 to 1 is wanted".into())
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().unwrap_or(f32::NAN).try_into()
    }
}

impl Method {
    /// Whether codes depend on what inputs are like.
    pub fn needs_data(&self) -> bool {
        self.compensate || self.clips.len() > 1
    }

    /// The name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Method { outer: Outer::Tensor, .. } => "paper",
            Method { compensate: true, .. } => "gptq",
            _ => "search",
        }
    }

    /// The nearest integer under absmax/7, as `quantize` does it.
    pub fn nearest() -> Self {
        Method {
            outer: Outer::Row,
            rounding: Rounding::Integer,
            signed: false,
            clips: vec![1.0],
            compensate: false,
            order: Order::Natural,
            damping: 0.0,
            catch_up: 0.0,
        }
    }

    /// The paper's.
    pub fn paper() -> Self {
        Method { outer: Outer::Tensor, ..Method::nearest() }
    }

    /// The best for one error at a time: signed scales, searched, over table entries.
    pub fn searched() -> Self {
        Method { rounding: Rounding::Entry, signed: true, clips: CLIPS.to_vec(), ..Method::nearest() }
    }

    /// The best there is.
    pub fn compensated() -> Self {
        let method = Method { compensate: true, order: Order::ByDiagonal, ..Method::searched() };
        Method { damping: 0.01, catch_up: 0.5, ..method }
    }
}
