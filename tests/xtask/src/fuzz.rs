//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, on the stable toolchain.

use crate::run::{command, run, succeeds};

const TARGETS: [&str; 3] = ["text_ir", "pipeline", "plan"];

/// Runs one target, or all of them one after another, each for `seconds`. What is found is left in
/// `tests/fuzz/artifacts`; new inputs go to a corpus below `target`, not to the one that is kept.
pub fn fuzz(target: Option<&str>, seconds: u64) -> Result<(), String> {
    if !succeeds(&["cargo", "fuzz", "--version"]) {
        return Err("cargo-fuzz is missing: cargo install cargo-fuzz --locked".into());
    }
    let chosen: Vec<&str> =
        TARGETS.into_iter().filter(|t| target.is_none_or(|wanted| wanted == *t)).collect();
    if chosen.is_empty() {
        return Err(format!("there are the targets {}", TARGETS.join(", ")));
    }
    chosen.into_iter().try_for_each(|target| run_target(target, seconds))
}

fn run_target(target: &str, seconds: u64) -> Result<(), String> {
    let (found, kept) = (format!("target/fuzz-corpus/{target}"), format!("tests/fuzz/corpus/{target}"));
    std::fs::create_dir_all(crate::run::root().join(&found)).map_err(|e| format!("{found}: {e}"))?;
    let time = format!("-max_total_time={seconds}");
    // Coverage needs flags that stable compilers take only when told so; a sanitizer would need another toolchain.
    let words =
        ["cargo", "fuzz", "run", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", target, &found, &kept];
    let limits = ["--", &time, "-rss_limit_mb=1024", "-timeout=5", "-max_len=8192", "-print_final_stats=1"];
    run(command(&[&words[..], &limits].concat()).env("RUSTC_BOOTSTRAP", "1"))
}
