//! `fireq logits MODEL_DIR` gives the logits of the reference implementation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fireq::numerics::relative_error;
use safetensors::SafeTensors;
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Relative L2 error of the first sequence of `reference.safetensors`.
fn error(dir: &Path, rope_dtype: &str) -> f64 {
    let bytes = fs::read(dir.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let (tokens, logits) = (reference.tensor("tokens").unwrap(), reference.tensor("logits").unwrap());
    let count = tokens.shape()[1];
    let ids = tokens.data().chunks_exact(8).take(count);
    let ids: Vec<String> = ids.map(|b| i64::from_le_bytes(b.try_into().unwrap()).to_string()).collect();
    let expected = floats(logits.data());
    let found = run(dir, &ids.join(","), rope_dtype);
    relative_error(&expected[..found.len()], &found)
}

fn run(dir: &Path, tokens: &str, rope_dtype: &str) -> Vec<f32> {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("logits.safetensors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    command.arg("logits").arg(dir).args(["--tokens", tokens, "--rope-dtype", rope_dtype, "-o"]).arg(&out);
    let result = command.output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let bytes = fs::read(out).unwrap();
    floats(SafeTensors::deserialize(&bytes).unwrap().tensor("logits").unwrap().data())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The fixtures' references come from models cast to their weights' dtype as a whole, rope frequencies included.
#[test]
fn every_fixture() {
    let fixtures = root().join("../shared/fixtures");
    if !fixtures.exists() {
        eprintln!("skipped: ../shared is not here");
        return;
    }
    let models = [
        ("llama2-mha", "f16"),
        ("llama3-gqa-scaled-rope", "bf16"),
        ("mistral-mqa", "bf16"),
        ("qwen2-bias-tied", "bf16"),
        ("qwen3-qknorm-hd128", "bf16"),
    ];
    for (name, rope_dtype) in models {
        let error = error(&fixtures.join(name), rope_dtype);
        assert!(error <= 1e-5, "{name}: relative error {error}");
    }
}

#[test]
fn the_demo_model() {
    let error = error(&root().join("tests/models/tinystories-3m"), "f32");
    assert!(error <= 1e-3, "relative error {error}");
}
