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

mod digest;
mod json;
mod page;

use serde::{Deserialize, Serialize};

pub use digest::{part, short};
pub use fireq_passes::findings::{Block, Kv, Refused, Smoothing, Weight};
pub use json::ReportError;
pub use page::html;

/// The file of an artifact that holds its report.
pub const FILE: &str = "report.json";

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
    /// The name of its file, or what else it is called.
    pub text: String,
    /// Sequences taken from it.
    pub sequences: usize,
    /// Tokens of the longest.
    pub tokens_each: usize,
}
