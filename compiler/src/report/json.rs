//! `report.json`: an object's fields have a line each, arrays of numbers stay on one.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};
use thiserror::Error;

use super::Report;

/// A text that is no report.
#[derive(Debug, Error)]
#[error("not a quantization report: {0}")]
pub struct ReportError(#[from] serde_json::Error);

impl Report {
    /// The report as JSON: the same text for the same report. JSON has no NaN and no infinities; they become `null`.
    pub fn to_json(&self) -> String {
        let mut text = vec![];
        let mut serializer = Serializer::with_formatter(&mut text, Lines(PrettyFormatter::new()));
        self.serialize(&mut serializer).expect("names are texts, and a vector takes what is written");
        text.push(b'\n');
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    /// Reads what [`Report::to_json`] writes; `null` is NaN where there must be a number.
    pub fn from_json(text: &str) -> Result<Self, ReportError> {
        Ok(serde_json::from_str(text)?)
    }
}

/// Breaks lines in objects, never in arrays: a vector of 4096 channels is a line.
struct Lines(PrettyFormatter<'static>);

impl Formatter for Lines {
    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Block, Calibration, Smoothing, Weight};
    use super::*;

    fn report() -> Report {
        let site = Smoothing { site: "qkv".into(), absmax_before: vec![1.5, 0.1], ..Smoothing::default() };
        let weight = Weight { name: "q".into(), clip: vec![(0.93, 3), (1.0, 5)], ..Weight::default() };
        let block = Block {
            error: 0.25,
            error_rtn: Some(0.5),
            smoothing: vec![site],
            weights: vec![weight.clone(), weight],
            ..Block::default()
        };
        let calibration = Calibration { text: "a \"text\"".into(), ..Calibration::default() };
        Report { calibration, blocks: vec![block.clone(), block], ..Report::default() }
    }

    #[test]
    fn what_is_written_reads_back_and_arrays_stay_on_a_line() {
        let text = report().to_json();
        assert_eq!(Report::from_json(&text).unwrap(), report());
        assert!(text.contains("\n      \"absmax_before\": [1.5, 0.1],\n"), "{text}");
        assert!(text.contains("\n      \"clip\": [[0.93, 3], [1.0, 5]],\n"), "{text}");
        assert!(text.contains("\n  \"blocks\": [{\n    \"name\""), "{text}");
    }

    #[test]
    fn what_is_no_number_survives_as_such() {
        let mut report = report();
        report.blocks[0].error = f64::INFINITY;
        report.blocks[0].weights[0].outer_max = f32::NAN;
        report.blocks[0].smoothing[0].absmax_before[1] = f32::NAN;
        let found = Report::from_json(&report.to_json()).unwrap();
        let block = &found.blocks[0];
        assert!(block.error.is_nan() && block.weights[0].outer_max.is_nan());
        assert!(block.smoothing[0].absmax_before[1].is_nan());
        assert_eq!(found.blocks[1], report.blocks[1]);
    }

    #[test]
    fn another_text_is_refused_with_its_place() {
        let error = Report::from_json("{\"model\": 3}").unwrap_err().to_string();
        let expected =
            "not a quantization report: invalid type: integer `3`, expected a string at line 1 column 11";
        assert_eq!(error, expected);
    }
}
