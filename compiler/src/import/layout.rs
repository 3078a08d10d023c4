//! The tensors that a model consists of, and the check that a checkpoint has exactly these.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::graph::Tensors;
use super::{Checkpoint, ImportError, ModelConfig, StoredTensor};

/// Checks that a checkpoint has every tensor of the model, in the right shape, as floats, and no others; but for those that are
/// `packed`, which were taken out of it.
pub(super) fn check(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    packed: &Tensors,
) -> Result<(), ImportError> {
    let mut expected = layout(config);
    expected.retain(|name, _| !packed.contains_key(name));
    let stored = &checkpoint.tensors;
    let missing: Vec<&str> =
        expected.keys().filter(|name| !stored.contains_key(*name)).map(String::as_str).collect();
    let extra: Vec<&str> = stored
        .keys()
        .filter(|name| !expected.contains_key(*name) && !is_ignored(config, name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let hint = match missing[0] {
            OUTPUT => {
                "if the model uses its embedding as output, set tie_word_embeddings to true in config.json"
            }
            _ => "config.json and the weights belong to different models, or a shard is missing",
        };
        return Err(ImportError::tensors(format!("the checkpoint lacks {}", listed(&missing)), hint));
    }
    if !extra.is_empty() {
        let hint =
            "config.json does not describe these weights: compiling without them would give wrong text";
        return Err(ImportError::tensors(format!("the checkpoint has unknown {}", listed(&extra)), hint));
    }
    expected.iter().try_for_each(|(name, shape)| check_tensor(name, shape, &stored[name]))
}

/// Name and shape of every tensor of a model, known from its configuration alone.
pub fn layout(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let mut all = BTreeMap::from([
        (EMBEDDING.to_string(), vec![config.vocab, config.hidden]),
        (NORM.to_string(), vec![config.hidden]),
    ]);
    if !config.tied {
        all.insert(OUTPUT.to_string(), vec![config.vocab, config.hidden]);
    }
    for layer in 0..config.layers {
        let block = |name: &str| format!("model.layers.{layer}.{name}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.insert(block(&format!("{norm}.weight")), vec![config.hidden]);
        }
        for (name, rows, cols, bias) in linears(config) {
            all.insert(block(&format!("{name}.weight")), vec![rows, cols]);
            if bias {
                all.insert(block(&format!("{name}.bias")), vec![rows]);
            }
        }
        if config.qk_norm {
            all.insert(block("self_attn.q_norm.weight"), vec![config.head_dim]);
            all.insert(block("self_attn.k_norm.weight"), vec![config.head_dim]);
        }
    }
    all
}

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const NORM: &str = "model.norm.weight";
pub(super) const OUTPUT: &str = "lm_head.weight";

/// Name, rows, columns and bias of each linear of a block.
fn linears(config: &ModelConfig) -> [(&'static str, usize, usize, bool); 7] {
    let (hidden, wide, biases) = (config.hidden, config.intermediate, config.biases);
    [
        ("self_attn.q_proj", config.q_width(), hidden, biases.qkv),
        ("self_attn.k_proj", config.kv_width(), hidden, biases.qkv),
        ("self_attn.v_proj", config.kv_width(), hidden, biases.qkv),
        ("self_attn.o_proj", hidden, config.q_width(), biases.o),
        ("mlp.gate_proj", wide, hidden, biases.mlp),
        ("mlp.up_proj", wide, hidden, biases.mlp),
        ("mlp.down_proj", hidden, wide, biases.mlp),
    ]
}

/// Tensors that some checkpoints carry and no computation needs: rope frequencies, and a copy of tied embeddings.
fn is_ignored(config: &ModelConfig, name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.tied && name == OUTPUT)
}

fn check_tensor(name: &str, shape: &[usize], stored: &StoredTensor) -> Result<(), ImportError> {
    if stored.shape != shape {
        let reason = format!("tensor `{name}` has shape {:?}, config.json implies {shape:?}", stored.shape);
        return Err(ImportError::tensors(reason, "config.json and the weights belong to different models"));
    }
    if !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        let reason = format!("tensor `{name}` has dtype {}, which is not read", stored.dtype);
        return Err(ImportError::tensors(reason, "fireq compiles checkpoints of F32, F16 and BF16"));
    }
    Ok(())
}

/// Up to three names, and how many more there are.
fn listed(names: &[&str]) -> String {
    let noun = if names.len() == 1 { "tensor" } else { "tensors" };
    let shown: Vec<String> = names.iter().take(3).map(|name| format!("`{}`", name.escape_debug())).collect();
    let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
    format!("{noun} {}{more}", shown.join(", "))
}
