//! `cargo xtask fuzz`: libFuzzer on the checks of `tests/src/fuzz.rs`, on the Rust that builds everything else.
//!
//! Starts from the corpus in the repository and keeps what it finds in `tests/fuzz/target`. An input that fails is
//! written to `tests/fuzz/artifacts`: fix what it shows, then add it to `tests/ir` or to `tests/fuzz/corpus`.

use std::fs;
use std::process::Command;

use crate::run::{root, run, succeeds};

/// What can be fuzzed.
pub const TARGETS: [&str; 4] = ["text_ir", "pipeline", "recipe", "plan"];

/// For libFuzzer: what texts claim to hold must not be allocated, and no text takes long.
const OPTIONS: [&str; 4] =
    ["-dict=fuzz/tokens.dict", "-rss_limit_mb=1024", "-timeout=5", "-print_final_stats=1"];

const INSTRUCTIONS: &str = "\
fuzzing needs cargo-fuzz and a C++ compiler (c++), which builds libFuzzer
     cargo-fuzz:      cargo install cargo-fuzz --locked
     Debian, Ubuntu:  sudo apt-get install g++
     Fedora:          sudo dnf install gcc-c++
     macOS:           xcode-select --install";

/// Runs one target, or each in turn, for this many seconds.
pub fn fuzz(target: Option<&str>, seconds: u64) -> Result<(), String> {
    let missing = !succeeds(&["cargo", "fuzz", "--version"]) || !succeeds(&["c++", "--version"]);
    if missing {
        return Err(INSTRUCTIONS.into());
    }
    TARGETS.into_iter().filter(|t| target.is_none_or(|wanted| wanted == *t)).try_for_each(|t| one(t, seconds))
}

fn one(target: &str, seconds: u64) -> Result<(), String> {
    let found = format!("fuzz/target/corpus/{target}");
    let tests = root().join("tests");
    fs::create_dir_all(tests.join(&found)).map_err(|e| format!("{found}: {e}"))?;
    let mut command = Command::new("cargo");
    command.current_dir(tests).args(["fuzz", "run", "--sanitizer", "none", target]);
    // What libFuzzer finds goes to the first of these.
    command.args([found, format!("fuzz/corpus/{target}")]);
    command.arg("--").args(OPTIONS).arg(format!("-max_total_time={seconds}"));
    run(&mut command)
}
