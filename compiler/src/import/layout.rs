//! The tensors that a model consists of, and the check that a checkpoint has exactly these.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::Dtype;

use super::graph::Tensors;
use super::{Checkpoint, ImportError, ModelConfig, StoredTensor, packed};

/// Checks that a checkpoint has every tensor of the model, in the right shape, as floats, and no others; but for those that are
/// `packed`, which were taken out of it.
pub(super) fn check(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    packed: &Tensors,
) -> Result<(), ImportError> {
    let stored = &checkpoint.tensors;
    check_names(config, stored.keys().chain(packed.keys()).map(String::as_str))?;
    let others = stored_layout(config).into_iter().filter(|(name, _)| !packed.contains_key(name));
    others.into_iter().try_for_each(|(name, shape)| check_tensor(&name, &shape, &stored[&name]))
}

/// Checks that these are the names of every tensor of the model, and of no others.
pub(super) fn check_names<'a>(
    config: &ModelConfig,
    stored: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), ImportError> {
    let (expected, names) = (stored_layout(config), stored.clone().collect::<BTreeSet<_>>());
    let missing: Vec<&str> =
        expected.keys().map(String::as_str).filter(|name| !names.contains(name)).collect();
    if !missing.is_empty() {
        let hint = match missing[0] {
            OUTPUT => {
                "if the model uses its embedding as output, set tie_word_embeddings to true in config.json"
            }
            _ => "config.json and the weights belong to different models, or a shard is missing",
        };
        return Err(ImportError::tensors(format!("the checkpoint lacks {}", listed(&missing)), hint));
    }
    let extra: Vec<&str> =
        stored.filter(|name| !expected.contains_key(*name) && !is_ignored(config, name)).collect();
    if !extra.is_empty() {
        let hint =
            "config.json does not describe these weights: compiling without them would give wrong text";
        return Err(ImportError::tensors(format!("the checkpoint has unknown {}", listed(&extra)), hint));
    }
    Ok(())
}

/// Name and shape of every tensor that a checkpoint has: those of [`layout`], some of them as rows of one.
pub fn stored_layout(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let mut all = layout(config);
    for (whole, parts) in fused(config) {
        let shapes: Vec<Vec<usize>> =
            parts.iter().map(|part| all.remove(part).expect("a tensor of the layout")).collect();
        let rows = shapes.iter().map(|shape| shape[0]).sum();
        all.insert(whole, [&[rows], &shapes[0][1..]].concat());
    }
    all
}

/// The tensors of the layout, of a checkpoint and its packed weights that were checked: rows of fused ones become tensors of
/// their own.
pub(super) fn split(config: &ModelConfig, checkpoint: &mut Checkpoint, packed: &mut Tensors) {
    let (shapes, stored) = (layout(config), &mut checkpoint.tensors);
    for (whole, parts) in fused(config) {
        let (numbers, codes) = (stored.remove(&whole), packed.remove(&whole));
        let mut from = 0;
        for part in parts {
            let rows = from..from + shapes[&part][0];
            from = rows.end;
            stored.extend(numbers.as_ref().map(|whole| (part.clone(), whole.rows(rows.clone()))));
            packed.extend(codes.as_ref().and_then(|whole| Some((part, packed::rows(whole, rows)?))));
        }
    }
}

/// Each tensor that is stored for several, and the names of these from its first row to its last.
fn fused(config: &ModelConfig) -> Vec<(String, Vec<String>)> {
    let weights: [(&str, &[&str]); 2] = [
        ("self_attn.qkv_proj", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        ("mlp.gate_up_proj", &["mlp.gate_proj", "mlp.up_proj"]),
    ];
    let layers = if config.family.fused { config.layers } else { 0 };
    let of_layer = |layer: usize| {
        let name = move |linear: &str| format!("model.layers.{layer}.{linear}.weight");
        weights.map(|(whole, parts)| (name(whole), parts.iter().map(|part| name(part)).collect()))
    };
    (0..layers).flat_map(of_layer).collect()
}

/// Name and shape of every tensor of the graph, known from its configuration alone.
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
        if config.family.qk_norm {
            all.insert(block("self_attn.q_norm.weight"), vec![config.head_dim]);
            all.insert(block("self_attn.k_norm.weight"), vec![config.head_dim]);
        }
    }
    all
}

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const NORM: &str = "model.norm.weight";
pub(crate) const OUTPUT: &str = "lm_head.weight";

/// Rows and columns of each linear of a block: query, key, value and output, then gate, up and down.
pub(crate) fn block_linears(config: &ModelConfig) -> [[usize; 2]; 7] {
    linears(config).map(|(_, rows, cols, _)| [rows, cols])
}

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
