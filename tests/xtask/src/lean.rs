//! `cargo xtask lean`: the binary that runs on machines with a GPU and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::run::{command, release_dir, root, run, succeeded};

/// The most bytes of the binary.
const SIZE: u64 = 20 << 20;
/// The longest that it takes to start and to check the demo model, which is all that is done before a GPU is touched.
const START: Duration = Duration::from_millis(50);
/// Starts, of which the median counts.
const STARTS: usize = 21;

/// Builds the binary and checks it.
pub fn lean() -> Result<(), String> {
    let aside = tempfile::tempdir().map_err(|e| e.to_string())?;
    build(&aside.path().join("demo.fireq")).map(drop)
}

/// Builds `fireq` without LLVM and compiles the demo model with it for GPUs, to `demo`. Fails where the binary is too large, links
/// LLVM or starts slowly.
pub fn build(demo: &Path) -> Result<PathBuf, String> {
    // In a folder of its own: a binary without LLVM is not the one that others expect in `target/release`.
    let folder = release_dir().with_file_name("gpu-only");
    let build = ["cargo", "build", "-q", "--release", "-p", "fireq", "--no-default-features", "--target-dir"];
    run(command(&build).arg(&folder))?;
    let binary = folder.join("release/fireq");
    let model = root().join("tests/models/tinystories-3m");
    let compile = ["compile", "--recipe", "rtn", "--target", "sm_90a", "-o"];
    let compiled = fireq(&binary).args(compile).args([demo, &model]).output();
    succeeded(compiled, "the demo model does not compile")?;
    check(&binary, demo)?;
    Ok(binary)
}

fn check(binary: &Path, demo: &Path) -> Result<(), String> {
    let size = fs::metadata(binary).map_err(|e| format!("{}: {e}", binary.display()))?.len();
    let (linked, start) = (linked(binary)?, start(binary, demo)?);
    let (mib, milliseconds) = (size as f64 / f64::from(1 << 20), start.as_secs_f64() * 1e3);
    println!(
        "{}: {mib:.1} MiB, starts in {milliseconds:.1} ms, links {}",
        binary.display(),
        linked.join(", ")
    );
    let wrong = [
        (size > SIZE, format!("more than {} MiB", SIZE >> 20)),
        (linked.iter().any(|name| name.contains("LLVM")), "it links LLVM".into()),
        (start > START, format!("more than {} ms to start", START.as_millis())),
    ];
    match wrong.into_iter().find(|(is, _)| *is) {
        Some((_, reason)) => Err(format!("{}: {reason}", binary.display())),
        None => Ok(()),
    }
}

fn fireq(binary: &Path) -> Command {
    command(&[&binary.to_string_lossy()])
}

/// Names of the libraries that the system's loader finds for it.
fn linked(binary: &Path) -> Result<Vec<String>, String> {
    let output = command(&["ldd"]).arg(binary).output().map_err(|e| format!("ldd: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.split_whitespace().next()?.rsplit('/').next());
    Ok(names.map(String::from).collect())
}

/// The time from a start to its end, with an artifact opened and checked between, and no GPU touched.
fn start(binary: &Path, artifact: &Path) -> Result<Duration, String> {
    let once = || {
        let began = Instant::now();
        succeeded(fireq(binary).arg("inspect").arg(artifact).output(), "the demo model cannot be opened")?;
        Ok(began.elapsed())
    };
    let mut times = (0..STARTS).map(|_| once()).collect::<Result<Vec<_>, String>>()?;
    times.sort();
    Ok(times[STARTS / 2])
}
