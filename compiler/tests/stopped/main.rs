//! Compilations that are killed at random moments, of which `cargo xtask crash-test` makes more with larger models, or that
//! disks and files fail.

#![cfg(all(feature = "llvm", target_os = "linux"))]

mod faults;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use xtask::crash::{Crashes, crash};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/tinystories-3m");

/// A model of many small weights, with a tokenizer.
fn model(dir: &Path, layers: usize) -> PathBuf {
    let config = fs::read_to_string(Path::new(MODEL).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [("hidden_size", 128), ("intermediate_size", 256), ("num_attention_heads", 2)] {
        config[key] = json!(value);
    }
    config["num_hidden_layers"] = json!(layers);
    let (path, model) = (dir.join("config.json"), dir.join("model"));
    fs::write(&path, config.to_string()).unwrap();
    xtask::random_model::write(&path, &model, 0, 1 << 30).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(MODEL).join(file), model.join(file)).unwrap();
    }
    model
}

#[track_caller]
fn killed(layers: usize, kills: usize, recipe: &[&str]) {
    let temp = TempDir::new().unwrap();
    let crashes = Crashes {
        binary: env!("CARGO_BIN_EXE_fireq").into(),
        model: model(temp.path(), layers),
        folder: temp.path().into(),
        recipe: recipe.iter().map(ToString::to_string).collect(),
        threads: 2,
        kills,
        seed: 1,
    };
    let seen = crash(&crashes, &mut |line| eprintln!("{line}")).unwrap();
    eprintln!("{seen:?}");
    assert!(seen.kills == kills && seen.packing > 0 && seen.ended > 0 && seen.weights > 7 * layers);
}

#[test]
fn rounding_goes_on_where_it_was_killed() {
    killed(32, 6, &["--recipe", "rtn"]);
}

#[test]
fn calibration_goes_on_where_it_was_killed() {
    killed(2, 4, &["--recipe", "fireq", "--calib-tokens", "256"]);
}
