//! `cargo xtask test` and `cargo xtask bless`.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::run::{command, describe, run, succeeds};
use crate::setup::{setup, setup_for_tests};

/// A step of the test command.
struct Step {
    name: &'static str,
    words: Vec<&'static str>,
    env: Vec<(&'static str, &'static str)>,
}

/// Runs every check, stops at the first that fails, and ends with what each took and what was skipped.
pub fn test() -> Result<(), String> {
    setup_for_tests()?;
    let mut times = vec![];
    let mut skipped = vec![];
    for step in steps(&mut skipped) {
        eprintln!("── {}", step.name);
        let start = Instant::now();
        let mut command = command(&step.words);
        command.envs(step.env.iter().copied()).env("INSTA_UPDATE", "no");
        let printed = run_and_collect(&mut command)?;
        skipped.extend(printed.lines().filter_map(|l| l.trim().strip_prefix("skipped: ").map(String::from)));
        times.push((step.name, start.elapsed().as_secs_f64()));
    }
    skipped.sort();
    skipped.dedup();
    for (name, seconds) in times {
        eprintln!("{seconds:7.1} s  {name}");
    }
    for reason in &skipped {
        eprintln!("skipped: {reason}");
    }
    println!("all checks passed, {} kinds of checks skipped", skipped.len());
    Ok(())
}

fn steps(skipped: &mut Vec<String>) -> Vec<Step> {
    let step = |name, words: &[&'static str]| Step { name, words: words.to_vec(), env: vec![] };
    let mut steps = vec![
        step("format", &["cargo", "fmt", "--all", "--check"]),
        step("lints", &["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        step(
            "lints without LLVM",
            &["cargo", "clippy", "-p", "fireq", "--no-default-features", "--", "-D", "warnings"],
        ),
    ];
    if succeeds(&["cargo", "nextest", "--version"]) {
        // Skipped checks say so on stderr, which nextest keeps of tests that pass when told to.
        let words = ["cargo", "nextest", "run", "--workspace", "--success-output", "final", "--no-fail-fast"];
        steps.push(step("tests", &words));
    } else {
        steps.push(step(
            "tests",
            &["cargo", "test", "--workspace", "--lib", "--bins", "--tests", "--", "--nocapture"],
        ));
    }
    steps.push(step("documentation examples", &["cargo", "test", "--workspace", "--doc"]));
    let docs = ["cargo", "doc", "--workspace", "--no-deps"];
    let private = [&docs[..], &["--document-private-items"]].concat();
    for (name, words) in [("documentation", docs.to_vec()), ("documentation of all items", private)] {
        steps.push(Step { name, words, env: vec![("RUSTDOCFLAGS", "-D warnings")] });
    }
    steps.extend(deny(skipped));
    steps
}

/// What cargo-deny checks, of both workspaces. Advisories only where their database can be had.
fn deny(skipped: &mut Vec<String>) -> Vec<Step> {
    if !succeeds(&["cargo", "deny", "--version"]) {
        skipped.push(
            "licences and sources: cargo-deny is not installed (cargo install cargo-deny --locked)".into(),
        );
        return vec![];
    }
    let command = |manifest| ["cargo", "deny", "--manifest-path", manifest, "--config", ".deny.toml"];
    let fetched = succeeds(&[&command("Cargo.toml")[..], &["fetch", "db"]].concat());
    if !fetched {
        skipped.push("advisories: the database (github.com/RustSec/advisory-db) cannot be fetched".into());
    }
    let checks: &[&str] = &[
        "check",
        "-A",
        "license-not-encountered",
        "-A",
        "license-exception-not-encountered",
        "bans",
        "licenses",
        "sources",
        "advisories",
    ];
    let checks = &checks[..checks.len() - usize::from(!fetched)];
    let name = if fetched { "licences, sources and advisories" } else { "licences and sources" };
    let step = |manifest| Step { name, words: [&command(manifest)[..], checks].concat(), env: vec![] };
    ["Cargo.toml", "tests/fuzz/Cargo.toml"].map(step).into()
}

/// Shows what a command prints and returns it too.
fn run_and_collect(command: &mut Command) -> Result<String, String> {
    use std::io::{BufRead, BufReader};
    let name = describe(command);
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|e| format!("{name}: {e}"))?;
    let mut printed = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("{line}");
            printed += &line;
            printed.push('\n');
        }
    }
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(printed) } else { Err(format!("{name}: {status}")) }
}

/// Accepts what the file tests print now, and shows what changed.
pub fn bless(filter: Option<String>) -> Result<(), String> {
    setup()?;
    let mut tests = command(&["cargo", "test", "-q", "-p", "fireq-tests", "--test", "file_tests"]);
    tests.env("INSTA_UPDATE", "always").envs(filter.map(|f| ("FIREQ_CASE", f)));
    run(&mut tests)?;
    run(&mut command(&["git", "status", "--short", "tests/ir"]))
}
