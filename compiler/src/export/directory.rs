//! What tells the directory of an export from others.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::ExportError;

/// The file that says what was exported; a directory that has it is an export.
pub const REPORT: &str = "fireq-export.json";

/// Refuses what exists and is no export, which alone is replaced.
pub fn check_output(out: &Path) -> Result<(), ExportError> {
    if out.symlink_metadata().is_err() {
        return Ok(());
    }
    let report = fs::read(out.join(REPORT)).unwrap_or_default();
    let report: Value = serde_json::from_slice(&report).unwrap_or_default();
    let ours = report["format"].is_string() && report["fireq"].is_string();
    if ours { Ok(()) } else { Err(ExportError::Exists(out.into())) }
}
