//! `cargo xtask crash-test`: compilations killed at random moments.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use xtask::crash::{Crashes, crash};
use xtask::random_model;

use crate::run::{command, release_dir, root, run};

#[derive(Args)]
pub struct Options {
    /// Kills for each recipe.
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// Of the random moments.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that compile.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Test the debug build, not the release build.
    #[arg(long)]
    debug: bool,
}

/// Channels, channels inside MLPs, layers of the models: one that takes a few seconds to round, and one to calibrate.
const ROUNDED: [u64; 3] = [1024, 2816, 16];
const CALIBRATED: [u64; 3] = [128, 384, 4];

/// Runs it for both kinds of recipes.
pub fn crash_test(options: &Options) -> Result<(), String> {
    let binary = build(options.debug)?;
    for (sizes, recipe) in [(ROUNDED, "rtn"), (CALIBRATED, "fireq")] {
        let place = release_dir().with_file_name("tmp");
        let folder = fs::create_dir_all(&place).and_then(|()| tempfile::tempdir_in(&place));
        let folder = folder.map_err(|e| format!("{}: {e}", place.display()))?;
        let model = folder.path().join("model");
        write(&model, sizes)?;
        let recipe = ["--recipe", recipe, "--calib-tokens", "512"].map(String::from).to_vec();
        println!("{}", recipe.join(" "));
        let crashes = Crashes {
            binary: binary.clone(),
            model,
            folder: folder.path().into(),
            recipe,
            threads: options.threads,
            kills: options.kills,
            seed: options.seed,
        };
        let seen = crash(&crashes, &mut |line| println!("  {line}"))?;
        println!(
            "  {} kills, {} of them while weights were packed; at most {} weights lost by one, with {} threads; up to {} of {} \
             resumed; {} compilations ended, each with the bytes of an undisturbed one",
            seen.kills, seen.packing, seen.lost, options.threads, seen.resumed, seen.weights, seen.ended
        );
    }
    Ok(())
}

fn build(debug: bool) -> Result<PathBuf, String> {
    let words = ["cargo", "build", "-q", "-p", "fireq"];
    let mut build = command(&words);
    if debug {
        run(&mut build)?;
        return Ok(release_dir().with_file_name("debug").join("fireq"));
    }
    run(build.arg("--release"))?;
    Ok(release_dir().join("fireq"))
}

/// A random model with the tokenizer of the bundled one.
fn write(model: &Path, [hidden, ffn, layers]: [u64; 3]) -> Result<(), String> {
    let bundled = root().join("tests/models/tinystories-3m");
    let io = |e: std::io::Error| e.to_string();
    let text = fs::read_to_string(bundled.join("config.json")).map_err(io)?;
    let mut config: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let sizes = [("hidden_size", hidden), ("intermediate_size", ffn), ("num_hidden_layers", layers)];
    for (key, value) in sizes.into_iter().chain([("num_attention_heads", hidden / 64)]) {
        config[key] = json!(value);
    }
    let path = model.with_extension("json");
    fs::write(&path, config.to_string()).map_err(io)?;
    random_model::write(&path, model, 0, 4 << 30)?;
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(bundled.join(file), model.join(file)).map_err(io)?;
    }
    Ok(())
}
