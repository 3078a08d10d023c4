//! Checkpoints of real sizes with random weights, to measure compilation with. Streams: one piece is in memory at a time.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// A tensor to write: name and shape.
pub type Tensor = (String, Vec<u64>);

/// Writes `config.json` and random bf16 weights for it into `output`, in shards of at most `shard_bytes` where tensors
/// allow. Matrices are roughly normal with deviation 0.02, norms near 1. The same seed gives the same bytes.
pub fn write(config: &Path, output: &Path, seed: u64, shard_bytes: u64) -> Result<(), String> {
    let text = fs::read_to_string(config).map_err(|e| format!("{}: {e}", config.display()))?;
    let config: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", config.display()))?;
    let shards = split(tensors(&config)?, shard_bytes);
    let io = |e: std::io::Error| format!("{}: {e}", output.display());
    fs::create_dir_all(output).map_err(io)?;
    let mut map = Map::new();
    for (n, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", n + 1, shards.len());
        write_shard(&output.join(&name), shard, seed.wrapping_add(n as u64)).map_err(io)?;
        map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
    }
    let total: u64 = shards.iter().flatten().map(bytes).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    fs::write(output.join("model.safetensors.index.json"), index.to_string()).map_err(io)?;
    fs::write(output.join("config.json"), text).map_err(io)
}

fn bytes((_, shape): &Tensor) -> u64 {
    2 * shape.iter().product::<u64>()
}

/// Every tensor of a Llama, Mistral, Qwen2 or Qwen3 checkpoint.
pub fn tensors(config: &Value) -> Result<Vec<Tensor>, String> {
    let number = |key: &str| config[key].as_u64().ok_or_else(|| format!("config.json has no number `{key}`"));
    let (hidden, heads) = (number("hidden_size")?, number("num_attention_heads")?);
    let head = config["head_dim"].as_u64().unwrap_or(hidden / heads);
    let kv = config["num_key_value_heads"].as_u64().unwrap_or(heads) * head;
    let (ffn, vocab, q) = (number("intermediate_size")?, number("vocab_size")?, heads * head);
    let kind = config["model_type"].as_str().unwrap_or("llama");
    let mut all = vec![("model.embed_tokens.weight".to_string(), vec![vocab, hidden])];
    for layer in 0..number("num_hidden_layers")? {
        let mut add =
            |name: &str, shape: &[u64]| all.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        let projections = [("q", q), ("k", kv), ("v", kv)];
        for (name, rows) in projections {
            add(&format!("self_attn.{name}_proj.weight"), &[rows, hidden]);
            if kind == "qwen2" || config["attention_bias"] == json!(true) {
                add(&format!("self_attn.{name}_proj.bias"), &[rows]);
            }
        }
        if kind == "qwen3" {
            for name in ["q", "k"] {
                add(&format!("self_attn.{name}_norm.weight"), &[head]);
            }
        }
        add("self_attn.o_proj.weight", &[hidden, q]);
        for name in ["gate", "up"] {
            add(&format!("mlp.{name}_proj.weight"), &[ffn, hidden]);
        }
        add("mlp.down_proj.weight", &[hidden, ffn]);
        for name in ["input", "post_attention"] {
            add(&format!("{name}_layernorm.weight"), &[hidden]);
        }
    }
    all.push(("model.norm.weight".into(), vec![hidden]));
    if config["tie_word_embeddings"] != json!(true) {
        all.push(("lm_head.weight".into(), vec![vocab, hidden]));
    }
    Ok(all)
}

fn split(tensors: Vec<Tensor>, shard_bytes: u64) -> Vec<Vec<Tensor>> {
    let mut shards: Vec<Vec<Tensor>> = vec![];
    let mut room = 0;
    for tensor in tensors {
        if shards.is_empty() || bytes(&tensor) > room {
            shards.push(vec![]);
            room = shard_bytes;
        }
        room = room.saturating_sub(bytes(&tensor));
        shards.last_mut().expect("one was pushed").push(tensor);
    }
    shards
}

fn write_shard(path: &Path, tensors: &[Tensor], seed: u64) -> std::io::Result<()> {
    let mut header = Map::new();
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + bytes(tensor);
        header.insert(
            tensor.0.clone(),
            json!({"dtype": "BF16", "shape": tensor.1, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut json = Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.write_all(&json)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for tensor in tensors {
        write_tensor(&mut file, tensor, &mut random)?;
    }
    file.flush()
}

/// Numbers in pieces: vectors near 1, matrices around 0, each a sum of four uniform bytes.
pub fn write_tensor(file: &mut impl Write, tensor: &Tensor, random: &mut ChaCha8Rng) -> std::io::Result<()> {
    const PIECE: u64 = 1 << 18;
    let vector = tensor.1.len() == 1;
    let (mut noise, mut piece) = (vec![0u8; 4 * PIECE as usize], Vec::with_capacity(2 * PIECE as usize));
    let mut left = bytes(tensor) / 2;
    while left > 0 {
        let count = left.min(PIECE) as usize;
        random.fill_bytes(&mut noise[..4 * count]);
        piece.clear();
        for bytes in noise[..4 * count].chunks_exact(4) {
            let sum = bytes.iter().map(|b| f32::from(*b)).sum::<f32>() - 510.0;
            let value = if vector { 1.0 + sum * 2e-4 } else { sum * 1.4e-4 };
            piece.extend_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
        }
        file.write_all(&piece)?;
        left -= count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_checkpoint_has_every_tensor_and_varied_finite_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"model_type": "qwen3", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 32, "intermediate_size": 96, "vocab_size": 50, "num_hidden_layers": 2, "tie_word_embeddings": false});
        let path = dir.path().join("in.json");
        fs::write(&path, config.to_string()).unwrap();
        let out = dir.path().join("out");
        write(&path, &out, 5, 40_000).unwrap();
        let index: Value =
            serde_json::from_str(&fs::read_to_string(out.join("model.safetensors.index.json")).unwrap())
                .unwrap();
        let map = index["weight_map"].as_object().unwrap();
        assert_eq!(map.len(), 3 + 2 * 11);
        let mut seen = 0;
        let mut shards: Vec<&str> = map.values().map(|v| v.as_str().unwrap()).collect();
        shards.sort_unstable();
        shards.dedup();
        assert!(shards.len() > 1);
        for shard in shards {
            let data = fs::read(out.join(shard)).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&data).unwrap();
            for (_, view) in tensors.tensors() {
                let values: Vec<f32> = view
                    .data()
                    .chunks(2)
                    .map(|b| f32::from_bits(u32::from(b[1]) << 24 | u32::from(b[0]) << 16))
                    .collect();
                assert!(values.iter().all(|v| v.is_finite() && v.abs() < 2.0));
                assert!(values.iter().any(|v| *v != values[0]));
                seen += 1;
            }
        }
        assert_eq!(seen, map.len());
    }
}
