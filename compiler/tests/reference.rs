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
    let error = error(&demo(), "f32");
    assert!(error <= 1e-3, "relative error {error}");
}

fn demo() -> PathBuf {
    root().join("tests/models/tinystories-3m")
}

const PROMPT: &str = "Once upon a time, there was a little girl named Lily.";

#[track_caller]
fn story(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    let result = command.arg("run").arg(demo()).args(args).output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    String::from_utf8(result.stdout).unwrap()
}

#[test]
fn the_greedy_story_is_that_of_the_reference() {
    let bytes = fs::read(demo().join("reference.safetensors")).unwrap();
    let greedy = SafeTensors::deserialize(&bytes).unwrap();
    let greedy = greedy.tensor("greedy").unwrap();
    let ids: Vec<u32> =
        greedy.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    let tokenizer = tokenizers::Tokenizer::from_file(demo().join("tokenizer.json")).unwrap();
    let expected = tokenizer.decode(&ids, true).unwrap();
    let found = story(&["--prompt", PROMPT, "-n", "200", "--rope-dtype", "bf16"]);
    assert_eq!(found.trim_end(), expected.trim_end());
}

#[test]
fn a_sampled_story_depends_on_its_seed_only() {
    let sampled = |seed| story(&["--prompt", PROMPT, "-n", "40", "--temperature", "1", "--seed", seed]);
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
}

#[test]
fn the_model_is_as_close_to_itself_as_can_be() {
    let temp = TempDir::new().unwrap();
    let text = temp.path().join("story.txt");
    fs::write(&text, story(&["--prompt", PROMPT, "-n", "60"])).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    command.arg("eval").arg(demo()).arg("--text").arg(&text).arg("--against").arg(demo()).arg("--json");
    let result: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let perplexity = result["perplexity"].as_f64().unwrap();
    assert!(perplexity > 1.0 && perplexity < 2.0, "a greedy story is likely: {perplexity}");
    assert_eq!(result["against"]["perplexity"], result["perplexity"]);
    assert_eq!(
        (&result["against"]["mean_kl"], &result["against"]["top1_agreement"]),
        (&0.0.into(), &1.0.into())
    );
    assert_eq!(result["against"]["worst"], serde_json::json!([]), "no prediction differs");
}
