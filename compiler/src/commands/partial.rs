//! What a calibrated compilation leaves beside its output until it is done, and how it says how far it is.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use fireq::calibrate::{CalibrationOptions, Folder, News};
use fireq::import::Model;
use fireq::report::part;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::progress;
use crate::cli::Import;
use crate::failure::{Failure, Outcome};

/// `OUT.partial`.
pub fn folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    out.with_file_name(name)
}

/// Removes it: the artifact holds all of it.
pub fn remove(out: Option<&Path>) {
    let Some(dir) = out.map(folder) else { return };
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let ours = |name: &str| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
    // What cannot be removed takes room and harms nothing; what is not ours stays.
    for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(ours)) {
        drop(fs::remove_dir_all(entry.path()));
    }
    drop(fs::remove_dir(dir));
}

/// The journal of a compilation to `out`.
pub fn journal(
    import: Import,
    out: &Path,
    model: &Model,
    pipeline: &str,
    calibration: &CalibrationOptions,
) -> Outcome<Folder> {
    let key = key(import, model, pipeline, calibration)?;
    let bar = progress("quantizing", 0);
    let style = ProgressStyle::with_template("{msg:40} {wide_bar} {percent}% {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Ok(Folder::new(folder(out), key, move |news| show(&bar, news)))
}

fn show(bar: &ProgressBar, news: News<'_>) {
    match news {
        News::Resumed(blocks) => {
            eprintln!("{blocks} blocks were quantized by an earlier run; going on behind them");
        }
        News::Working(done, all, _) if done == all => bar.finish_and_clear(),
        News::Working(done, all, (pass, block)) => {
            if bar.length() == Some(0) {
                // What an earlier run did says nothing about how fast this one is.
                bar.set_length(all);
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
            bar.set_message(format!("{pass} in {}", part(block)));
        }
    }
}

/// All that quantized weights depend on: this program, the model's files, the passes and the text.
fn key(import: Import, model: &Model, pipeline: &str, calibration: &CalibrationOptions) -> Outcome<String> {
    let program = std::env::current_exe().and_then(fs::metadata).map(|m| stamp(&m)).unwrap_or_default();
    let mut files: Vec<String> = fs::read_dir(&model.dir)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let kind = entry.path().extension()?.to_str()?.to_string();
            if kind != "safetensors" && kind != "json" {
                return None;
            }
            Some(format!("{} {}", entry.file_name().display(), stamp(&fs::metadata(entry.path()).ok()?)))
        })
        .collect();
    files.sort();
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|e| {
            let failure = Failure::from_error(&e).within(format!("cannot read `{}`", path.display()));
            failure.hint("--calib is a UTF-8 text file")
        })
    };
    let text = calibration.text.as_ref().map(read).transpose()?;
    let text = text.map(|text| blake3::hash(&text).to_hex().to_string());
    let CalibrationOptions { tokens, sequence, .. } = calibration;
    Ok(format!("{program}\n{files:?}\n{import:?}\n{pipeline}\n{text:?} {tokens} {sequence}"))
}

/// What changes when a file does.
fn stamp(metadata: &Metadata) -> String {
    let time = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{} {}", metadata.len(), time.unwrap_or_default().as_nanos())
}
