//! What commands print: results on stdout, progress on stderr.

use std::io::{IsTerminal, Write};
use std::path::Path;

use fireq::reproducer;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// Writes text to stdout and flushes it.
pub fn emit(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes one JSON object to stdout.
pub fn emit_json(value: &Value) -> Outcome {
    emit(&format!("{value:#}\n"))
}

/// Rows in columns, the first `right` of them aligned to the right.
pub fn table<const N: usize>(rows: &[[String; N]], right: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let cell = |(n, text): (usize, &String)| {
        if n < right { format!("{text:>0$}", widths[n]) } else { format!("{text:<0$}", widths[n]) }
    };
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A progress bar on stderr; nothing where stderr is not a terminal.
pub fn progress(what: &'static str, length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:>12} {bar:30} {pos}/{len} {eta}");
    let bar = ProgressBar::new(length as u64).with_message(what);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Writes a file under a temporary name beside it and renames it: what is there under the name is whole.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Outcome) -> Outcome {
    let fail = |e: std::io::Error| {
        Failure::from_error(&e)
            .within(format!("cannot write `{}`", path.display()))
            .hint("give a path in a directory that exists and can be written")
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = reproducer::temporary_in(folder).map_err(fail)?;
    write(&mut file)?;
    file.flush().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// A size in bytes as a person reads it.
pub fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}
