//! `cargo xtask fuzz`: libFuzzer on the checks of `tests/src/fuzz`, on the Rust that builds everything else.
//!
//! Starts from the corpus in the repository and keeps what it finds in `tests/fuzz/target`. An input that fails is
//! written to `tests/fuzz/artifacts`: fix what it shows, then add it to `tests/ir` or to `tests/fuzz/corpus`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::run::{describe, root, run, succeeds};

/// What can be fuzzed.
pub const TARGETS: [&str; 12] = [
    "text_ir",
    "pipeline",
    "recipe",
    "plan",
    "checkpoint",
    "packed",
    "config",
    "artifact",
    "program",
    "measurements",
    "tokenizer",
    "journal",
];

/// For libFuzzer: what files claim to hold must not be allocated, and no file of an input's size takes long; beside other work
/// a process may stand still for a while, too, and the clock goes on.
const OPTIONS: [&str; 4] =
    ["-dict=fuzz/tokens.dict", "-rss_limit_mb=1024", "-timeout=120", "-print_final_stats=1"];

const INSTRUCTIONS: &str = "\
fuzzing needs cargo-fuzz and a C++ compiler (c++), which builds libFuzzer
     cargo-fuzz:      cargo install cargo-fuzz --locked
     Debian, Ubuntu:  sudo apt-get install g++
     Fedora:          sudo dnf install gcc-c++
     macOS:           xcode-select --install";

/// What is asked for.
pub struct Request {
    /// One target; without it all.
    pub target: Option<String>,
    /// Seconds for each.
    pub seconds: u64,
    /// Targets at a time.
    pub jobs: usize,
}

/// What became of a target, as its log says.
struct Row {
    target: &'static str,
    seconds: String,
    executions: String,
    per_second: String,
    edges: String,
    features: String,
    inputs: String,
    result: String,
}

/// Runs one target, or all, and ends with a table of what was tried; an error where any failed.
pub fn fuzz(request: &Request) -> Result<(), String> {
    let missing = !succeeds(&["cargo", "fuzz", "--version"]) || !succeeds(&["c++", "--version"]);
    if missing {
        return Err(INSTRUCTIONS.into());
    }
    let binaries = build()?;
    let wanted = |target: &&str| request.target.as_deref().is_none_or(|wanted| wanted == *target);
    let queue = Mutex::new(TARGETS.into_iter().filter(wanted).collect::<Vec<_>>().into_iter());
    let rows = Mutex::new(vec![]);
    let work = || {
        while let Some(target) = queue.lock().ok().and_then(|mut queue| queue.next()) {
            let row = one(target, &binaries, request.seconds);
            rows.lock().map_err(|_| "another target's thread ended early".to_string())?.push(row?);
        }
        Ok::<_, String>(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..request.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a thread panicked".to_string())?)
    })?;
    let rows = rows.into_inner().map_err(|e| e.to_string())?;
    println!("{}", table(&rows));
    match rows.iter().filter(|row| row.result != CLEAN).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} targets failed", rows.len())),
    }
}

/// Builds all targets; the folder of their binaries.
fn build() -> Result<PathBuf, String> {
    let tests = root().join("tests");
    run(Command::new("cargo").current_dir(&tests).args(["fuzz", "build", "--sanitizer", "none"]))?;
    let version = Command::new("rustc").arg("-vV").output().map_err(|e| format!("rustc: {e}"))?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    Ok(tests.join("fuzz/target").join(host).join("release"))
}

fn one(target: &'static str, binaries: &Path, seconds: u64) -> Result<Row, String> {
    let tests = root().join("tests");
    let found = format!("fuzz/target/corpus/{target}");
    let failed = format!("fuzz/artifacts/{target}/");
    let log = tests.join(format!("fuzz/target/{target}.log"));
    for folder in [&found, &failed] {
        fs::create_dir_all(tests.join(folder)).map_err(|e| format!("{folder}: {e}"))?;
    }
    let mut command = Command::new(binaries.join(target));
    command.current_dir(&tests).args(OPTIONS);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={failed}"));
    // What libFuzzer finds goes to the first of these.
    command.args([found, format!("fuzz/corpus/{target}")]);
    let output = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    eprintln!("{target}: {seconds} s; {}", log.display());
    let status = command.stderr(output).status().map_err(|e| format!("{}: {e}", describe(&command)))?;
    let log = fs::read(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    Ok(row(target, &String::from_utf8_lossy(&log), status.success()))
}

const CLEAN: &str = "clean";

/// Reads libFuzzer's last words.
fn row(target: &'static str, log: &str, clean: bool) -> Row {
    let statistic = |name: &str| {
        let value = log.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        value.map_or("?", |value| value.trim_start_matches(':').trim()).to_string()
    };
    let status =
        log.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: ")).unwrap_or_default();
    let word = |name: &str| {
        let mut words = status.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap_or("?").to_string()
    };
    let ended = log.lines().rev().find_map(|line| line.strip_prefix("Done ")?.rsplit(" in ").next());
    let reason = log.lines().find(|line| line.contains("panicked at") || line.starts_with("SUMMARY"));
    Row {
        target,
        seconds: ended.and_then(|text| text.split(' ').next()).unwrap_or("?").to_string(),
        executions: statistic("number_of_executed_units"),
        per_second: statistic("average_exec_per_sec"),
        edges: word("cov:"),
        features: word("ft:"),
        inputs: word("corp:").split('/').next().unwrap_or("?").to_string(),
        result: if clean { CLEAN.into() } else { reason.unwrap_or("failed").trim().to_string() },
    }
}

/// In the form of Markdown.
fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| target | seconds | executions | a second | edges | features | inputs kept | result |".to_string(),
        "|---|---|---|---|---|---|---|---|".to_string(),
    ];
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| TARGETS.iter().position(|target| *target == row.target));
    lines.extend(rows.into_iter().map(|row| {
        let Row { target, seconds, executions, per_second, edges, features, inputs, result } = row;
        format!("| `{target}` | {seconds} | {executions} | {per_second} | {edges} | {features} | {inputs} | {result} |")
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
#2\tINITED cov: 100 ft: 120 corp: 3/9b exec/s: 0 rss: 30Mb
#4096\tNEW    cov: 2767 ft: 9851 corp: 1756/1191Kb lim: 3076 exec/s: 273 rss: 38Mb L: 108/3076 MS: 1 EraseBytes-
Done 5000 runs in 901 second(s)
stat::number_of_executed_units: 5000
stat::average_exec_per_sec:     5
";

    #[test]
    fn the_table_has_what_the_log_ends_with() {
        let table =
            table(&[row("plan", LOG, true), row("text_ir", "thread panicked at x.rs:1:\nwhy", false)]);
        assert!(table.ends_with("| `plan` | 901 | 5000 | 5 | 2767 | 9851 | 1756 | clean |"), "{table}");
        assert!(
            table.contains("| `text_ir` | ? | ? | ? | ? | ? | ? | thread panicked at x.rs:1: |\n"),
            "{table}"
        );
    }
}
