//! A Llama of one layer, small enough that a simulator reads hundreds of its tokens in a second.

use std::fs;
use std::path::{Path, PathBuf};

use fireq_runtime::Artifact;
use fireq_runtime::cuda::Gpu;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;

use super::simulated;

/// Tokens that it has.
pub const VOCAB: usize = 64;

/// Its artifact and a simulated GPU, where it is the test's turn.
pub fn on_the_simulator(test: &str) -> Option<(Artifact, Gpu)> {
    simulated::with_model(test, write)
}

/// Writes it into a folder.
fn write(within: &Path) -> PathBuf {
    let dir = within.join("tiny");
    fs::create_dir(&dir).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 64,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "head_dim": 64, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 }, "tie_word_embeddings": false,
        "dtype": "float32", "bos_token_id": 0, "eos_token_id": 1,
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let square =
        ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"];
    let matrices = ["model.embed_tokens".into(), "lm_head".into()].into_iter();
    let matrices = matrices.chain(square.iter().map(|name| format!("model.layers.0.{name}_proj")));
    let norms = ["model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"];
    let norms = norms.iter().map(|name| (format!("{name}.weight"), vec![64]));
    let all = matrices.map(|name| (format!("{name}.weight"), vec![64, 64])).chain(norms);
    let filled = all.map(|(name, shape)| {
        let offset = if shape.len() == 1 { 1.0f32 } else { 0.0 };
        let number = |_| (offset + random.random_range(-0.3..0.3)).to_le_bytes();
        let bytes: Vec<u8> = (0..shape.iter().product::<usize>()).flat_map(number).collect();
        (name, shape, bytes)
    });
    let filled: Vec<(String, Vec<usize>, Vec<u8>)> = filled.collect();
    let views = filled.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    fs::write(dir.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    dir
}
