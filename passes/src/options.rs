//! Options of passes: `{name=value,…}` read against the pass table.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fireq_ir::text::nearest;
use serde::Deserialize;

use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::pipeline::syntax;
use crate::table::PassInfo;

/// A positive number that an f32 can hold, with its inverse.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(crate) struct Positive(pub f32);

impl TryFrom<f64> for Positive {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        let number = number as f32;
        let usable = number > 0.0 && number.is_finite() && number.recip().is_finite();
        if usable { Ok(Positive(number)) } else { Err("a positive number is wanted".into()) }
    }
}

impl FromStr for Positive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<f64>().map_err(|_| "a positive number is wanted")?.try_into()
    }
}

/// The options of one pass, defaults filled in. Prints as the pass is written in a pipeline.
pub struct Options {
    info: &'static PassInfo,
    values: BTreeMap<String, String>,
    calibration: Arc<Calibration>,
}

impl Options {
    /// What calibrated passes look at.
    pub(crate) fn calibration(&self) -> &Arc<Calibration> {
        &self.calibration
    }

    /// An option as text.
    pub fn text(&self, name: &str) -> Result<&str, PipelineError> {
        self.values.get(name).map(String::as_str).ok_or_else(|| unknown(self.info, name, None))
    }

    /// An option as a number.
    pub fn number(&self, name: &str) -> Result<usize, PipelineError> {
        self.text(name)?.parse().map_err(|_| self.refuse(name, "a whole number is wanted"))
    }

    /// An option as a positive number.
    pub fn positive(&self, name: &str) -> Result<f32, PipelineError> {
        self.parsed::<Positive>(name).map(|number| number.0)
    }

    /// An option as what its text stands for.
    pub fn parsed<T: FromStr<Err = String>>(&self, name: &str) -> Result<T, PipelineError> {
        self.text(name)?.parse().map_err(|reason| self.refuse(name, reason))
    }

    /// The error for a value that a pass cannot use.
    pub fn refuse(&self, name: &str, reason: impl Into<String>) -> PipelineError {
        let value = self.values.get(name).cloned().unwrap_or_default();
        PipelineError::Value { pass: self.info.id.into(), option: name.into(), value, reason: reason.into() }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.info.options.iter().filter(|o| self.values[o.name] != o.default);
        let items: Vec<String> = set.map(|o| format!("{}={}", o.name, self.values[o.name])).collect();
        f.write_str(self.info.id)?;
        if items.is_empty() { Ok(()) } else { write!(f, "{{{}}}", items.join(",")) }
    }
}

fn unknown(info: &PassInfo, option: &str, hint: Option<String>) -> PipelineError {
    PipelineError::UnknownOption { pass: info.id.into(), option: option.into(), hint }
}

/// The options in `braced`, which starts at byte `at` of `text`.
pub(crate) fn read_options(
    info: &'static PassInfo,
    text: &str,
    mut at: usize,
    braced: &str,
    calibration: &Arc<Calibration>,
) -> Result<Options, PipelineError> {
    let defaults = info.options.iter().map(|o| (o.name.to_string(), o.default.to_string()));
    let mut options = Options { info, values: defaults.collect(), calibration: calibration.clone() };
    for item in braced.split(',') {
        let start = at;
        at += item.len() + 1;
        if item.trim().is_empty() {
            continue;
        }
        let (name, value) =
            item.split_once('=').ok_or_else(|| syntax(text, start, "an option is `name=value`"))?;
        let (name, value) = (name.trim(), value.trim());
        if !options.values.contains_key(name) {
            return Err(unknown(info, name, nearest(name, info.options.iter().map(|o| o.name))));
        }
        options.values.insert(name.into(), value.into());
    }
    Ok(options)
}
