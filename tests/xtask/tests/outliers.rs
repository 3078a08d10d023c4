//! Twins of the demo model have outliers in their weights; what is no model is refused.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::Value;
use tempfile::TempDir;
use xtask::outliers::{Factors, Kind, Request, write};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tinystories-3m")
}

fn request(kind: Kind, seed: u64) -> Request {
    Request { kind, seed, factors: Factors::default() }
}

/// Largest absolute value of each row, or of each element of a vector, in ascending order.
fn reach(dir: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let float = |b: &[u8]| match tensor.dtype() {
        Dtype::BF16 => f32::from_bits(u32::from(b[1]) << 24 | u32::from(b[0]) << 16),
        _ => f32::from_le_bytes(b.try_into().unwrap()),
    };
    let size = tensor.data().len() / tensor.shape().iter().product::<usize>();
    let columns = tensor.shape().get(1).copied().unwrap_or(1);
    let row = |b: &[u8]| b.chunks_exact(size).fold(0.0, |m: f32, b| m.max(float(b).abs()));
    let mut rows: Vec<f32> = tensor.data().chunks_exact(size * columns).map(row).collect();
    rows.sort_by(f32::total_cmp);
    rows
}

/// Largest to median.
fn ratio(reach: &[f32]) -> f32 {
    reach[reach.len() - 1] / reach[reach.len() / 2]
}

/// The largest channels of the tensor are `factor` times as far from the median as before, and `count` stand out.
#[track_caller]
fn check(kind: Kind, name: &str, factor: f32, count: usize) {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("twin");
    write(&demo(), &out, &request(kind, 1)).unwrap();
    let name = format!("model.layers.1.{name}.weight");
    let (before, after) = (reach(&demo(), &name), reach(&out, &name));
    let growth = ratio(&after) / ratio(&before);
    assert!(growth > 0.5 * factor && growth < 1.1 * factor, "{name}: grew {growth} times");
    let far = after.iter().filter(|r| **r > before[before.len() - 1]).count();
    assert_eq!(far, count, "{name}");
}

#[test]
fn norms_have_outliers() {
    check(Kind::Norms, "input_layernorm", 40.0, 4);
    check(Kind::Norms, "post_attention_layernorm", 40.0, 4);
}

#[test]
fn up_projections_have_outliers() {
    check(Kind::Mlp, "mlp.up_proj", 40.0, 8);
}

#[test]
fn keys_have_outliers_in_both_channels_of_two_pairs_per_head() {
    check(Kind::Keys, "self_attn.k_proj", 20.0, 2 * 2 * 2);
}

#[test]
fn a_seed_gives_the_same_bytes_and_another_does_not() {
    let temp = TempDir::new().unwrap();
    let bytes = |name: &str, seed| {
        let out = temp.path().join(name);
        write(&demo(), &out, &request(Kind::All, seed)).unwrap();
        fs::read(out.join("model.safetensors")).unwrap()
    };
    let first = bytes("a", 1);
    assert!(first == bytes("b", 1));
    assert!(first != bytes("c", 2));
}

#[test]
fn the_tokenizer_comes_along_and_the_state_is_f32() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("deep/twin");
    write(&demo(), &out, &request(Kind::Norms, 1)).unwrap();
    let read = |dir: &Path, name: &str| fs::read(dir.join(name)).unwrap();
    assert!(read(&out, "tokenizer.json") == read(&demo(), "tokenizer.json"));
    let json = |dir: &Path| serde_json::from_slice::<Value>(&read(dir, "config.json")).unwrap();
    let (mut before, after) = (json(&demo()), json(&out));
    before["dtype"] = "float32".into();
    assert_eq!(before, after);
    assert!(!out.join("reference.safetensors").exists());
}

/// The demo model, spoilt, is refused with an error that ends like this, and nothing is left of the twin.
#[track_caller]
fn refused(spoil: impl FnOnce(&Path), request: &Request, expected: &str) {
    let temp = TempDir::new().unwrap();
    let (model, out) = (temp.path().join("model"), temp.path().join("twin"));
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(demo().join(name), model.join(name)).unwrap();
    }
    spoil(&model);
    let error = write(&model, &out, request).unwrap_err();
    assert!(error.contains(expected), "{error}");
    let left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["model"]);
}

fn replace_weights(dir: &Path, name: &str, dtype: Dtype) {
    let view = TensorView::new(dtype, vec![2], &[0; 16][..2 * dtype.bitsize() / 8]).unwrap();
    fs::write(dir.join("model.safetensors"), serialize([(name, view)], None).unwrap()).unwrap();
}

#[test]
fn what_is_no_model_is_refused() {
    let all = request(Kind::All, 0);
    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
    refused(remove("config.json"), &all, "is not a model directory: config.json: ");
    refused(remove("model.safetensors"), &all, "neither model.safetensors nor model.safetensors.index.json");
    refused(|dir| fs::write(dir.join("config.json"), "{}").unwrap(), &all, "`hidden_size` is missing");
    refused(|dir| fs::write(dir.join("model.safetensors"), "short").unwrap(), &all, "model.safetensors: ");
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let all = request(Kind::All, 0);
    let norm = "model.layers.0.input_layernorm.weight";
    refused(|dir| replace_weights(dir, "x", Dtype::F32), &all, &format!("lacks tensor `{norm}`"));
    refused(|dir| replace_weights(dir, norm, Dtype::F32), &all, "has shape [2], config.json implies [256]");
    refused(|dir| replace_weights(dir, norm, Dtype::I64), &all, "has dtype I64, not F32, F16 or BF16");
}

#[test]
fn factors_are_positive_and_outputs_are_new() {
    let factors = Factors { keys: 0.0, ..Factors::default() };
    refused(|_| (), &Request { factors, ..request(Kind::All, 0) }, "a factor is a positive number, not 0");
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("mine"), "").unwrap();
    let error = write(&demo(), temp.path(), &request(Kind::All, 0)).unwrap_err();
    assert!(error.ends_with("it exists already and is no empty directory"), "{error}");
}
