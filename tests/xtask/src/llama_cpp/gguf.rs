//! A GGUF file with random weights: what llama.cpp's tools read.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use xtask::random_model::{Tensor, tensors, write_tensor};

/// Bytes to which tensors are aligned.
const ALIGN: u64 = 32;
/// Numbers of ggml's types.
const F32: u32 = 0;
const BF16: u32 = 30;

/// Writes a Llama model of this `config.json` with random weights, matrices as bf16; without a vocabulary.
pub fn write(config: &Path, output: &Path, seed: u64) -> Result<(), String> {
    let text = fs::read_to_string(config).map_err(|e| format!("{}: {e}", config.display()))?;
    let config: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", config.display()))?;
    if config["model_type"] != "llama" {
        return Err("only Llama models are compared with llama.cpp".into());
    }
    let tensors = tensors(&config)?;
    let written = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(output)?);
        let header = header(&config, &tensors);
        file.write_all(&header)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for tensor in &tensors {
            write_padded(&mut file, tensor, &mut random)?;
        }
        file.flush()
    };
    written().map_err(|e| format!("{}: {e}", output.display()))
}

/// Everything before the first tensor's numbers.
fn header(config: &Value, tensors: &[Tensor]) -> Vec<u8> {
    let facts = facts(config);
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((facts.len() as u64).to_le_bytes());
    for (key, value) in &facts {
        string(&mut out, key);
        out.extend(value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        string(&mut out, &renamed(&tensor.0));
        out.extend((tensor.1.len() as u32).to_le_bytes());
        tensor.1.iter().rev().for_each(|extent| out.extend(extent.to_le_bytes()));
        out.extend(dtype(tensor).0.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += bytes(tensor).next_multiple_of(ALIGN);
    }
    out.resize(out.len().next_multiple_of(ALIGN as usize), 0);
    out
}

/// Metadata: keys, and values behind their type.
fn facts(config: &Value) -> Vec<(String, Vec<u8>)> {
    let number = |key: &str| config[key].as_u64().unwrap_or_default() as u32;
    let word = |n: u32| [4u32.to_le_bytes(), n.to_le_bytes()].concat();
    let float = |x: f64| [6u32.to_le_bytes(), (x as f32).to_le_bytes()].concat();
    let text = |text: &str| {
        let mut value = 8u32.to_le_bytes().to_vec();
        string(&mut value, text);
        value
    };
    let heads = number("num_attention_heads");
    let head = config["head_dim"].as_u64().map_or(number("hidden_size") / heads.max(1), |n| n as u32);
    let kv_heads = config["num_key_value_heads"].as_u64().map_or(heads, |n| n as u32);
    let of_model = [
        ("block_count", word(number("num_hidden_layers"))),
        ("context_length", word(number("max_position_embeddings"))),
        ("embedding_length", word(number("hidden_size"))),
        ("feed_forward_length", word(number("intermediate_size"))),
        ("attention.head_count", word(heads)),
        ("attention.head_count_kv", word(kv_heads)),
        ("attention.key_length", word(head)),
        ("attention.value_length", word(head)),
        ("attention.layer_norm_rms_epsilon", float(config["rms_norm_eps"].as_f64().unwrap_or(1e-5))),
        ("rope.dimension_count", word(head)),
        ("rope.freq_base", float(config["rope_theta"].as_f64().unwrap_or(1e4))),
        ("vocab_size", word(number("vocab_size"))),
    ];
    let general = [
        ("general.architecture".to_string(), text("llama")),
        ("general.name".into(), text("random")),
        ("tokenizer.ggml.model".into(), text("no_vocab")),
    ];
    general.into_iter().chain(of_model.map(|(key, value)| (format!("llama.{key}"), value))).collect()
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A tensor's name in GGUF.
fn renamed(name: &str) -> String {
    const NAMES: [(&str, &str); 12] = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let short = name.replace("model.layers.", "blk.");
    NAMES
        .iter()
        .find_map(|(from, to)| {
            let before = short.strip_suffix(".weight")?.strip_suffix(from)?;
            Some(format!("{before}{to}.weight"))
        })
        .unwrap_or(short)
}

/// Vectors are f32. Type, and bytes of a number.
fn dtype(tensor: &Tensor) -> (u32, u64) {
    if tensor.1.len() == 1 { (F32, 4) } else { (BF16, 2) }
}

fn bytes(tensor: &Tensor) -> u64 {
    dtype(tensor).1 * tensor.1.iter().product::<u64>()
}

fn write_padded(file: &mut impl Write, tensor: &Tensor, random: &mut ChaCha8Rng) -> std::io::Result<()> {
    if dtype(tensor).0 == F32 {
        let mut halves = vec![];
        write_tensor(&mut halves, tensor, random)?;
        let floats = halves.chunks_exact(2).flat_map(|half| [0, 0, half[0], half[1]]);
        file.write_all(&floats.collect::<Vec<_>>())?;
    } else {
        write_tensor(file, tensor, random)?;
    }
    let padding = bytes(tensor).next_multiple_of(ALIGN) - bytes(tensor);
    file.write_all(&vec![0; padding as usize])
}
