//! Calibrated compilation of the demo model from the command line: better than round to nearest, smooth without changing a
//! number, the same bytes on any number of threads, and refused with a reason.

#![cfg(feature = "llvm")]

mod tiny;

use std::fs;
use std::path::{Path, PathBuf};

use fireq::numerics::relative_error;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;
use tiny::fireq;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/tinystories-3m");
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/stories.txt");

#[track_caller]
fn run(args: &[&str]) -> String {
    let result = fireq(args);
    assert!(result.status.success(), "{args:?}: {}", String::from_utf8_lossy(&result.stderr));
    String::from_utf8(result.stdout).unwrap()
}

/// An artifact of the demo model, calibrated on few tokens.
fn compile(temp: &TempDir, name: &str, args: &[&str]) -> PathBuf {
    let out = temp.path().join(name);
    run(&[&["compile", MODEL, "-o", out.to_str().unwrap(), "--calib-tokens", "2048"], args].concat());
    out
}

fn mean_kl(artifact: &Path) -> f64 {
    let artifact = artifact.to_str().unwrap();
    let found = run(&[
        "eval",
        artifact,
        "--text",
        TEXT,
        "--ctx",
        "256",
        "--limit",
        "6144",
        "--against",
        MODEL,
        "--json",
    ]);
    serde_json::from_str::<Value>(&found).unwrap()["against"]["mean_kl"].as_f64().unwrap()
}

#[test]
fn calibration_halves_the_loss_of_round_to_nearest() {
    let temp = TempDir::new().unwrap();
    let rtn = mean_kl(&compile(&temp, "rtn.fireq", &["--recipe", "rtn"]));
    let fireq = mean_kl(&compile(&temp, "calibrated.fireq", &["--recipe", "fireq"]));
    eprintln!("mean KL: rtn {rtn:.5}, fireq {fireq:.5}");
    assert!(fireq < 0.6 * rtn, "fireq {fireq}, rtn {rtn}");
}

fn logits(temp: &TempDir, model: &str) -> Vec<f32> {
    let out = temp.path().join("logits.safetensors");
    let tokens = (3..67).map(|id: u32| (id * 37 % 1024).to_string()).collect::<Vec<_>>().join(",");
    run(&["logits", model, "--tokens", &tokens, "-o", out.to_str().unwrap()]);
    let bytes = fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.tensor("logits").unwrap().data().chunks_exact(4);
    floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn smoothing_alone_changes_no_number() {
    let temp = TempDir::new().unwrap();
    let exact = logits(&temp, MODEL);
    // Linears of this model have nothing to gain; tests/ir/smooth-linears has some that do.
    for passes in ["smooth-rope-pre,fold-scales", "smooth-rope-post"] {
        let smooth = compile(&temp, "smooth.fireq", &["--passes", &format!("blocks({passes})")]);
        let error = relative_error(&exact, &logits(&temp, smooth.to_str().unwrap()));
        eprintln!("{passes}: {error:.2e}");
        assert!(error > 0.0, "{passes}: nothing was smoothed");
        assert!(error < 1e-5, "{passes}: {error}");
    }
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let temp = TempDir::new().unwrap();
    let weights = |threads: &str| {
        let args = ["--recipe", "fireq", "--threads", threads];
        fs::read(compile(&temp, "threads.fireq", &args).join("weights.safetensors")).unwrap()
    };
    assert!(weights("1") == weights("2"));
}

#[test]
fn text_that_cannot_be_read_is_named() {
    let refused = |model: &str, args: &[&str], expected: &str| {
        let temp = TempDir::new().unwrap();
        let out = temp.path().join("out.fireq");
        let base = ["compile", model, "-o", out.to_str().unwrap(), "--recipe", "fireq", "--reproducer"];
        let reproducer = temp.path().join("reproducer.ir");
        let result = fireq(&[&base[..], &[reproducer.to_str().unwrap()], args].concat());
        let message = String::from_utf8_lossy(&result.stderr).into_owned();
        assert_eq!(result.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(!out.exists());
    };
    refused(MODEL, &["--calib", "/no/such/text"], "cannot read `/no/such/text`");
    let temp = TempDir::new().unwrap();
    tiny::write(temp.path(), &tiny::config(), &tiny::tensors());
    refused(temp.path().to_str().unwrap(), &[], "tokenizer.json");
}

#[test]
fn what_reads_selected_rows_is_calibrated_like_the_rest() {
    let temp = TempDir::new().unwrap();
    let passes = "smooth-linears{keep=model.layers*},quantize-weights{method=search,keep=model.layers*},\
                  quantize-activations";
    let out = compile(&temp, "head.fireq", &["--passes", passes]);
    let plan = fs::read_to_string(out.join("graph.ir")).unwrap();
    let codes = plan.lines().find(|line| line.contains("model.embed_tokens.weight.i4"));
    assert!(codes.is_some_and(|line| line.contains("i4<g128")), "{plan}");
}
