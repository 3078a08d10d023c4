//! What quantization did, as `fireq compile` says it: in lines, as JSON, as a page.

use std::path::Path;

use fireq::import::Model;
use fireq::report::{self, Report, html, part, short};
use fireq_passes::Calibration;
use serde_json::{Value, json};

use super::output::write_file;
use crate::cli::Compile;
use crate::failure::{Failure, Outcome};

/// What passes noted, if they noted anything; --html asks for something.
pub fn report(
    options: &Compile,
    model: &Model,
    recipe: &str,
    calibration: &Calibration,
) -> Outcome<Option<Report>> {
    let blocks = calibration.findings();
    if blocks.is_empty() {
        return if options.html.is_none() { Ok(None) } else { Err(nothing(recipe)) };
    }
    let (sequences, tokens_each) = calibration.extent(&model.graph);
    // Without the folder: an artifact does not depend on where things are.
    let given = options.calib.as_ref().and_then(|path| path.file_name());
    let text = given.map_or_else(|| "bundled stories".into(), |name| name.to_string_lossy().into_owned());
    let calibration = report::Calibration { text, sequences, tokens_each };
    Ok(Some(Report { model: model.config.name.clone(), recipe: recipe.into(), calibration, blocks }))
}

fn nothing(recipe: &str) -> Failure {
    Failure::new(format!("recipe `{recipe}` measures nothing that a page could show"))
        .hint("--recipe fireq quantizes on a calibration text, and measures every block")
}

/// Writes the page of a report.
pub fn write_page(report: &Report, out: &Path) -> Outcome {
    write_file(out, |file| Ok(file.write_all(html(report).as_bytes())?))
}

/// A few lines.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    if let (Some(gain), Some(worst)) = (report.gain(), report.worst()) {
        let (name, error) = (part(&worst.name), worst.error);
        text += &format!(
            "  blocks    {gain:.2} times the error of round to nearest on average; worst {name}, {error:.4}\n"
        );
    }
    if let (smoothed, searched @ 1..) = report.smoothed() {
        let others = if smoothed < searched { ", not worth it at the others" } else { "" };
        text += &format!("  smoothing at {smoothed} of {searched} sites{others}\n");
    }
    let line = |(reason, sites): (&str, Vec<&str>)| format!("  untouched {}: {reason}\n", listed(&sites));
    text + &report.refused().into_iter().map(line).collect::<String>()
}

/// The first few of many.
pub fn listed(sites: &[&str]) -> String {
    let shown: Vec<&str> = sites.iter().take(3).map(|site| short(site)).collect();
    let more = sites.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    shown.join(", ") + &more
}

/// The same for programs.
pub fn json(report: &Report) -> Value {
    let refused = report.blocks.iter().flat_map(|block| &block.refused);
    let (smoothed, searched) = report.smoothed();
    json!({
        "error_against_rtn": report.gain(),
        "worst": report.worst().map(|block| json!({ "block": block.name, "error": block.error })),
        "smoothed": smoothed,
        "searched": searched,
        "refused": refused.collect::<Vec<_>>(),
    })
}
