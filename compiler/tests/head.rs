//! An 8-bit head from recipe to logits: what the artifact holds of it, and that every kind of machine reads it.

#![cfg(feature = "llvm")]

mod simulated;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

use simulated::{failed, succeeded};

/// The demo model, whose head is its embedding.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/tinystories-3m")
}

/// A recipe that leaves all but the head as it is.
fn recipe(within: &Path) -> PathBuf {
    let path = within.join("head.toml");
    fs::write(&path, "[weights]\nmethod = \"keep\"\nhead = \"e4m3\"\n[kv]\nfit = \"keep\"\n").unwrap();
    path
}

fn compile(within: &Path, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    command.arg("compile").arg(model()).arg("--recipe").arg(recipe(within)).args(more);
    succeeded(&command.output().unwrap())
}

#[test]
fn an_embedding_has_rows_to_look_up_and_codes_to_multiply_with() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("m.fireq");
    let planned: Value = serde_json::from_str(&compile(temp.path(), &["--dry-run", "--json"])).unwrap();
    compile(temp.path(), &["-o", out.to_str().unwrap()]);
    let bytes = fs::read(out.join("weights.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    let (vocab, hidden) = (1024, 256);
    for (name, dtype, shape) in [
        ("model.embed_tokens.weight", Dtype::BF16, [vocab, hidden]),
        ("model.embed_tokens.weight.2.codes", Dtype::F8_E4M3, [vocab, hidden]),
        ("model.embed_tokens.weight.2.scales", Dtype::F32, [vocab, 1]),
    ] {
        let found = weights.tensor(name).unwrap();
        assert_eq!((found.dtype(), found.shape()), (dtype, &shape[..]), "{name}");
    }
    let all: u64 = weights.tensors().iter().map(|(_, tensor)| tensor.data().len() as u64).sum();
    assert_eq!(planned["weight_bytes"].as_u64(), Some(all), "{planned}");
    let compared = Command::new(env!("CARGO_BIN_EXE_fireq"))
        .arg("logits")
        .arg(&out)
        .args(["--tokens", "5,4,3,2,1,0", "--compare-ops"])
        .output()
        .unwrap();
    assert!(succeeded(&compared).contains("linear"));
}

#[test]
fn a_gpu_has_a_kernel_for_it() {
    let temp = TempDir::new().unwrap();
    let Some(driver) = simulated::driver(temp.path(), "an 8-bit head on a GPU") else { return };
    let (out, recipe) = (temp.path().join("m.fireq"), temp.path().join("gpu.toml"));
    fs::write(&recipe, "[weights]\nhead = \"e4m3\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    command.arg("compile").arg(model()).arg("-o").arg(&out).arg("--recipe").arg(&recipe);
    succeeded(&command.args(["--target", "sm_90a"]).output().unwrap());
    let program = fs::read_to_string(out.join("kernels/program.json")).unwrap();
    assert!(program.contains("logits_e4m3_1024x256_t8"), "{program}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    simulated::on(&mut command, &driver, &out.join("kernels"));
    command.arg("logits").arg(&out).args(["--device", "cuda", "--tokens", "5,4,3,2,1,0", "--compare-ops"]);
    assert!(succeeded(&command.output().unwrap()).contains("linear"));
}

#[test]
fn a_format_that_heads_do_not_have_is_refused_with_its_place() {
    let temp = TempDir::new().unwrap();
    let recipe = temp.path().join("wrong.toml");
    fs::write(&recipe, "[weights]\nhead = \"e5m2\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    command.arg("compile").arg(model()).arg("--dry-run").arg("--recipe").arg(&recipe);
    let said = failed(&command.output().unwrap());
    assert!(said.contains("unknown variant `e5m2`, expected `keep` or `e4m3`"), "{said}");
    assert!(said.contains("line 2, column 8"), "{said}");
}
