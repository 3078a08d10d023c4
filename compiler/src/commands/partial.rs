//! What a compilation leaves beside its output until it is done, and how it says how far it is.

use std::fs::{self, Metadata};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use fireq::build::Origin;
use fireq::calibrate::{CalibrationOptions, Folder, News};
use fireq::compile::CompileError;
use fireq::import::Model;
use fireq::report::part;
use fireq_codegen::artifact::{self, Partial};
use fireq_ir::Sources;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::progress;
use crate::cli::{Compile, Import};
use crate::failure::{Failure, Outcome};

/// The right to write the output, and the folder for what is not done yet; nothing where no artifact is written.
pub fn open(options: &Compile) -> Outcome<Option<Partial>> {
    let out = options.output.as_ref().filter(|_| !options.dry_run && options.run.stop_after.is_none());
    let Some(out) = out else { return Ok(None) };
    let partial = Partial::open(out).map_err(CompileError::from)?;
    // Of a shape there is little to do, and its key would be its text.
    if options.fresh || options.shape.is_some() {
        partial.clear().map_err(CompileError::from)?;
    }
    Ok(Some(partial))
}

/// The journal of a calibrated compilation.
pub fn journal(partial: &Partial, origin: &Origin) -> Folder {
    let bar = progress("quantizing", 0);
    let style = ProgressStyle::with_template("{msg:40} {wide_bar} {percent}% {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Folder::new(partial.dir().to_path_buf(), origin.clone(), move |news| show(&bar, news))
}

/// Shows how far the writing of weights is.
pub fn packing() -> impl Fn(artifact::News) + Sync {
    let bar = progress("weights", 0);
    let style = ProgressStyle::with_template("{msg:>12} {bar:30} {bytes}/{total_bytes} {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    move |news| match news {
        artifact::News::Resumed { weights, of, bytes, total } => {
            eprintln!("{weights} of {of} weights were packed by an earlier run; going on with the others");
            // What an earlier run did says nothing about how fast this one is.
            bar.set_length(total);
            bar.set_position(bytes);
            bar.reset_eta();
        }
        artifact::News::Packed(done, total) => {
            bar.set_length(total);
            bar.set_position(done);
        }
        artifact::News::Hashed(done, total) => {
            if bar.message() != "hashes" {
                bar.set_message("hashes");
                bar.set_length(total);
                bar.reset_eta();
            }
            bar.set_position(done);
            if done == total {
                bar.finish_and_clear();
            }
        }
    }
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

/// Where weights come from: what they depend on, and the files that they are read from.
pub fn origin(
    import: Import,
    model: &Model,
    pipeline: &str,
    calibration: &CalibrationOptions,
) -> Outcome<Origin> {
    let sources = Sources::of(&model.graph);
    Ok(Origin { key: key(import, model, pipeline, calibration)?, sources })
}

/// All that quantized weights depend on: this program, the model's files, the passes and the text.
fn key(import: Import, model: &Model, pipeline: &str, calibration: &CalibrationOptions) -> Outcome<String> {
    if model.weightless {
        // Nothing is gone on with.
        return Ok(String::new());
    }
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
