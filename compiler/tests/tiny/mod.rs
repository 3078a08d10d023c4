//! A tiny Llama made on the spot, runs of the binary on it, and the check that a spoilt one is refused.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor as it will be written.
#[derive(Clone)]
pub struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub type Tensors = BTreeMap<String, Stored>;

/// The configuration, in the keys of transformers 5.
pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 32, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 }, "tie_word_embeddings": false,
        "dtype": "float32", "bos_token_id": 0, "eos_token_id": [1, 2],
    })
}

/// Random weights for [`config`], in f32.
pub fn tensors() -> Tensors {
    let mut all = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let tensor = random(all.len() as u64, shape);
        all.insert(name, tensor);
    };
    add("model.embed_tokens.weight".into(), &[32, 64]);
    add("lm_head.weight".into(), &[32, 64]);
    add("model.norm.weight".into(), &[64]);
    for layer in 0..2 {
        let linears = [
            ("self_attn.q_proj", [64, 64]),
            ("self_attn.k_proj", [32, 64]),
            ("self_attn.v_proj", [32, 64]),
            ("self_attn.o_proj", [64, 64]),
            ("mlp.gate_proj", [96, 64]),
            ("mlp.up_proj", [96, 64]),
            ("mlp.down_proj", [64, 96]),
        ];
        for (name, shape) in linears {
            add(format!("model.layers.{layer}.{name}.weight"), &shape);
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("model.layers.{layer}.{name}.weight"), &[64]);
        }
    }
    all
}

pub fn random(seed: u64, shape: &[usize]) -> Stored {
    let mut state = seed.wrapping_mul(0x9e3779b97f4a7c15) ^ 0x2545f4914f6cdd1d;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let offset = if shape.len() == 1 { 1.0 } else { 0.0 };
    let bytes = (0..shape.iter().product()).flat_map(|_| (offset + 0.3 * next()).to_le_bytes()).collect();
    Stored { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

/// The bytes of a safetensors file.
pub fn file(tensors: &Tensors) -> Vec<u8> {
    let view = |(name, t): (&String, _)| (name.clone(), view(t));
    serialize(tensors.iter().map(view).collect::<Vec<_>>(), None).unwrap()
}

fn view(tensor: &Stored) -> TensorView<'_> {
    TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap()
}

/// Writes a model directory of one weight file.
pub fn write(dir: &Path, config: &Value, tensors: &Tensors) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("model.safetensors"), file(tensors)).unwrap();
}

/// Runs the binary.
pub fn fireq(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fireq")).args(args).output().unwrap()
}

/// A good model, spoilt by `spoil`, is refused with `expected` on stderr. `{dir}` stands for the model directory.
#[track_caller]
pub fn refused(spoil: impl FnOnce(&Path), expected: &str) {
    let temp = TempDir::new().unwrap();
    let (dir, out) = (temp.path().join("model"), temp.path().join("out.safetensors"));
    write(&dir, &config(), &tensors());
    spoil(&dir);
    let (model, output) = (dir.to_str().unwrap(), out.to_str().unwrap());
    let result = fireq(&["logits", model, "--interpret", "--tokens", "1,2,3", "-o", output]);
    assert_eq!(String::from_utf8_lossy(&result.stderr).trim_end().replace(model, "{dir}"), expected);
    assert_eq!(result.status.code(), Some(1));
    assert!(result.stdout.is_empty(), "nothing on stdout");
    let left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["model"], "no output, whole or partial");
}

#[track_caller]
pub fn refused_config(change: impl FnOnce(&mut Value), expected: &str) {
    let spoil = |dir: &Path| {
        let mut config = config();
        change(&mut config);
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
    };
    refused(spoil, expected);
}

#[track_caller]
pub fn refused_tensors(change: impl FnOnce(&mut Tensors), expected: &str) {
    let spoil = |dir: &Path| {
        let mut tensors = tensors();
        change(&mut tensors);
        fs::write(dir.join("model.safetensors"), file(&tensors)).unwrap();
    };
    refused(spoil, expected);
}

#[track_caller]
pub fn refused_file(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let spoil = |dir: &Path| {
        let path = dir.join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    refused(spoil, expected);
}
