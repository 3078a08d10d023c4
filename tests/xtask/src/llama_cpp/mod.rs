//! `cargo xtask llama-cpp`: the same shape in llama.cpp and in fireq, run in turn. llama.cpp is a yardstick: it is fetched and
//! built outside of the repository.

mod build;
mod gguf;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::run::{command, describe, release_dir, run, succeeded};
use xtask::random_model;

/// What is compared.
#[derive(Args)]
pub struct Options {
    /// The `config.json` of a Llama model.
    config: PathBuf,
    /// Where llama.cpp is built and models are kept, to be used again: gigabytes.
    #[arg(long)]
    folder: PathBuf,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 512)]
    prefill: usize,
    /// Tokens of a continuation.
    #[arg(long, default_value_t = 128)]
    decode: usize,
    /// Runs of each, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A recipe's name, or its file.
    #[arg(long, default_value = "rtn")]
    recipe: String,
    /// Threads that compile and quantize.
    #[arg(long, default_value_t = 2)]
    quantize_threads: usize,
}

/// Prints tokens per second of both, medians over all rounds, and their ratio with its spread.
pub fn compare(options: &Options) -> Result<(), String> {
    run(&mut command(&["cargo", "build", "-q", "--release", "-p", "fireq"]))?;
    let theirs = build::build(&options.folder)?;
    let models = Models::make(options, &theirs)?;
    println!("{:28} {:>12} {:>12} {:>8}  spread", "tokens/s", "llama.cpp", "fireq", "ratio");
    for threads in &options.threads {
        for (what, tokens, prompt) in [("prefill", options.prefill, true), ("decode", options.decode, false)]
        {
            let mut pairs = vec![];
            for _ in 0..options.rounds {
                let ours = models.ours(tokens, prompt, *threads)?;
                pairs.push((models.theirs(&theirs, tokens, prompt, *threads)?, ours));
            }
            println!("{}", line(&format!("{what} {tokens}, {threads} threads"), &pairs));
        }
    }
    Ok(())
}

/// A line of the table, from what both had in each round.
fn line(what: &str, pairs: &[(f64, f64)]) -> String {
    let mut ratios: Vec<f64> = pairs.iter().map(|(theirs, ours)| ours / theirs).collect();
    let [mut theirs, mut ours]: [Vec<f64>; 2] =
        [pairs.iter().map(|p| p.0).collect(), pairs.iter().map(|p| p.1).collect()];
    let [theirs, ours] = [median(&mut theirs), median(&mut ours)];
    let ratio = median(&mut ratios);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    format!("{what:28} {theirs:12.1} {ours:12.1} {ratio:8.2}  {least:.2} to {most:.2}")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The same shape for both, with 4-bit weights.
struct Models {
    gguf: PathBuf,
    artifact: PathBuf,
}

impl Models {
    /// Random weights, quantized by both, which is timed.
    fn make(options: &Options, theirs: &Path) -> Result<Self, String> {
        let name = folder_name(&options.config)?;
        let folder = options.folder.join(name);
        let io = |e: std::io::Error| format!("{}: {e}", folder.display());
        fs::create_dir_all(&folder).map_err(io)?;
        let recipe = Path::new(&options.recipe).with_extension("fireq");
        let artifact = folder.join(recipe.file_name().ok_or("a recipe has a name")?);
        let [bf16, gguf, checkpoint] = ["bf16.gguf", "q4_0.gguf", "checkpoint"].map(|name| folder.join(name));
        if !bf16.exists() {
            gguf::write(&options.config, &bf16, 0)?;
        }
        if !checkpoint.exists() {
            random_model::write(&options.config, &checkpoint, 0, 4 << 30)?;
        }
        let threads = options.quantize_threads.to_string();
        for old in [&gguf, &artifact] {
            if old.exists() {
                fs::remove_dir_all(old).or_else(|_| fs::remove_file(old)).map_err(io)?;
            }
        }
        let mut quantize = Command::new(theirs.join("llama-quantize"));
        let theirs = measured(quantize.arg(&bf16).arg(&gguf).args(["Q4_0", &threads]))?;
        let mut compile = Command::new(release_dir().join("fireq"));
        compile.arg("compile").arg(&checkpoint).args([
            "--recipe",
            &options.recipe,
            "--threads",
            &threads,
            "-o",
        ]);
        let ours = measured(compile.arg(&artifact))?;
        println!("{:28} {:>12} {:>12} {:>8}", "quantization", "llama.cpp", "fireq", "ratio");
        println!("{:28} {:12.1} {:12.1} {:8.2}", "seconds", theirs.0, ours.0, ours.0 / theirs.0);
        println!("{:28} {:12.0} {:12.0} {:8.2}", "peak MiB", theirs.1, ours.1, ours.1 / theirs.1);
        Ok(Models { gguf, artifact })
    }

    fn ours(&self, tokens: usize, prompt: bool, threads: usize) -> Result<f64, String> {
        let (prefill, decode) = if prompt { (tokens, 1) } else { (1, tokens) };
        let mut bench = Command::new(release_dir().join("fireq"));
        bench.arg("bench").arg(&self.artifact).args(["--json", "--repeat", "1"]);
        let numbers = [("--prefill", prefill), ("--decode", decode), ("--threads", threads)]
            .map(|(o, n)| [o.into(), n.to_string()]);
        let said =
            succeeded(bench.args(numbers.as_flattened()).stderr(Stdio::null()).output(), "fireq bench")?;
        let part = if prompt { "prefill" } else { "decode" };
        number(&said, |json| &json[part]["tokens_per_second"])
    }

    fn theirs(&self, tools: &Path, tokens: usize, prompt: bool, threads: usize) -> Result<f64, String> {
        let (prefill, decode) = if prompt { (tokens, 0) } else { (0, tokens) };
        let mut bench = Command::new(tools.join("llama-bench"));
        bench.arg("-m").arg(&self.gguf).args(["-o", "json", "-r", "1"]);
        let numbers =
            [("-p", prefill), ("-n", decode), ("-t", threads)].map(|(o, n)| [o.into(), n.to_string()]);
        let said =
            succeeded(bench.args(numbers.as_flattened()).stderr(Stdio::null()).output(), "llama-bench")?;
        number(&said, |json| &json[0]["avg_ts"])
    }
}

/// A number in JSON.
fn number(text: &str, of: impl Fn(&Value) -> &Value) -> Result<f64, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| format!("{e}: {text}"))?;
    of(&json).as_f64().ok_or_else(|| format!("no number in {text}"))
}

/// A name for a config's folder.
fn folder_name(config: &Path) -> Result<String, String> {
    let path = config.canonicalize().map_err(|e| format!("{}: {e}", config.display()))?;
    let names = path.with_extension("");
    Ok(names.iter().rev().take(2).map(|n| n.to_string_lossy().into_owned()).collect::<Vec<_>>().join("-of-"))
}

/// Seconds, and peak memory in MiB, of a command that succeeds.
fn measured(command: &mut Command) -> Result<(f64, f64), String> {
    let name = describe(command);
    let began = Instant::now();
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| format!("{name}: {e}"))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        peak = kib.map_or(peak, |kib| kib / 1024.0);
        match child.try_wait().map_err(|e| format!("{name}: {e}"))? {
            Some(status) if status.success() => return Ok((began.elapsed().as_secs_f64(), peak)),
            Some(status) => return Err(format!("{name}: {status}")),
            None => sleep(Duration::from_millis(20)),
        }
    }
}
