//! Checkpoints of real sizes with random weights, to measure compilation with. Streams: one piece is in memory at a time, and
//! any piece can be made without those before it.

mod shard;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

pub use shard::Shard;

/// A tensor to write: name and shape.
pub type Tensor = (String, Vec<u64>);

/// Writes `config.json` and random bf16 weights for it into `output`, in shards of at most `shard_bytes` where tensors
/// allow. Matrices are roughly normal with deviation 0.02, norms near 1. The same seed gives the same bytes.
pub fn write(config: &Path, output: &Path, seed: u64, shard_bytes: u64) -> Result<(), String> {
    let checkpoint = Checkpoint::read(config, seed, shard_bytes, None)?;
    let io = |e: std::io::Error| format!("{}: {e}", output.display());
    fs::create_dir_all(output).map_err(io)?;
    for shard in &checkpoint.shards {
        File::create(output.join(&shard.name)).and_then(|file| write_shard(file, shard)).map_err(io)?;
    }
    fs::write(output.join(INDEX), &checkpoint.index).map_err(io)?;
    fs::write(output.join(CONFIG), &checkpoint.config).map_err(io)
}

fn write_shard(mut file: File, shard: &Shard) -> std::io::Result<()> {
    let mut piece = vec![0; 1 << 20];
    for at in (0..shard.len()).step_by(piece.len()) {
        let count = piece.len().min((shard.len() - at) as usize);
        shard.read_at(at, &mut piece[..count]);
        file.write_all(&piece[..count])?;
    }
    Ok(())
}

/// Names of the files beside shards.
pub const CONFIG: &str = "config.json";
/// That of the index.
pub const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint of random weights: what its files hold, without any of them.
pub struct Checkpoint {
    /// The text of `config.json`.
    pub config: String,
    /// The text of the index.
    pub index: String,
    /// Files of weights.
    pub shards: Vec<Shard>,
}

impl Checkpoint {
    /// That of a configuration, of another number of layers where one is given.
    pub fn read(config: &Path, seed: u64, shard_bytes: u64, layers: Option<u64>) -> Result<Self, String> {
        let text = fs::read_to_string(config).map_err(|e| format!("{}: {e}", config.display()))?;
        let mut config: Value =
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", config.display()))?;
        let text = layers.map_or(text, |layers| {
            config["num_hidden_layers"] = json!(layers);
            config.to_string()
        });
        let shards = split(tensors(&config)?, shard_bytes);
        let (count, mut map) = (shards.len(), Map::new());
        let name = |n: usize| format!("model-{:05}-of-{count:05}.safetensors", n + 1);
        for (n, shard) in shards.iter().enumerate() {
            map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), json!(name(n)))));
        }
        let total: u64 = shards.iter().flatten().map(bytes).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": map}).to_string();
        let shard =
            |(n, tensors): (usize, Vec<Tensor>)| Shard::new(name(n), &tensors, seed.wrapping_add(n as u64));
        Ok(Checkpoint { config: text, index, shards: shards.into_iter().enumerate().map(shard).collect() })
    }
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

/// Numbers in pieces: vectors near 1, matrices around 0, each a sum of four uniform bytes.
pub fn write_tensor(file: &mut impl Write, tensor: &Tensor, random: &mut ChaCha8Rng) -> std::io::Result<()> {
    const PIECE: u64 = 1 << 18;
    let vector = tensor.1.len() == 1;
    let (mut noise, mut piece) = (vec![0u8; 4 * PIECE as usize], vec![0; 2 * PIECE as usize]);
    let mut left = bytes(tensor) / 2;
    while left > 0 {
        let count = left.min(PIECE) as usize;
        random.fill_bytes(&mut noise[..4 * count]);
        let piece = &mut piece[..2 * count];
        numbers(vector, &noise[..4 * count], piece);
        file.write_all(piece)?;
        left -= count as u64;
    }
    Ok(())
}

/// bf16 numbers from four bytes of noise each.
fn numbers(vector: bool, noise: &[u8], to: &mut [u8]) {
    for (bytes, number) in noise.as_chunks::<4>().0.iter().zip(to.as_chunks_mut::<2>().0) {
        let sum = bytes.iter().map(|b| i32::from(*b)).sum::<i32>() as f32 - 510.0;
        let value = if vector { 1.0 + sum * 2e-4 } else { sum * 1.4e-4 };
        *number = ((value.to_bits() >> 16) as u16).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_piece_is_the_same_wherever_reading_begins() {
        let tensors = [("a".into(), vec![300, 70]), ("b".into(), vec![77]), ("c".into(), vec![5, 9, 11])];
        let shard = Shard::new("s".into(), &tensors, 3);
        let mut all = vec![0; shard.len() as usize];
        shard.read_at(0, &mut all);
        let data = safetensors::SafeTensors::deserialize(&all).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for tensor in &tensors {
            let mut expected = vec![];
            write_tensor(&mut expected, tensor, &mut random).unwrap();
            assert!(data.tensor(&tensor.0).unwrap().data() == expected, "{}", tensor.0);
        }
        for (at, count) in [(0, 1), (7, 100), (2001, 1), (2002, 4001), (all.len() - 3, 3), (all.len(), 0)] {
            let mut piece = vec![0; count];
            shard.read_at(at as u64, &mut piece);
            assert!(piece == all[at..at + count], "{at}, {count}");
        }
    }

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
