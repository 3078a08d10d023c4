//! The keys of `config.json`, of transformers 4 and 5, and the checks that make them a [`ModelConfig`].

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::rope::{self, RawRope};
use super::{Architecture, Biases, ImportError, ModelConfig, Packing};

/// The keys that are read; every other key is left alone.
#[derive(Debug, Deserialize)]
pub(super) struct Keys {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: Option<u64>,
    hidden_size: Option<u64>,
    intermediate_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    max_position_embeddings: Option<u64>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    #[serde(default = "default_window")]
    sliding_window: Value,
    use_sliding_window: Option<bool>,
    quantization_config: Option<Value>,
    pub(super) bos_token_id: Option<Value>,
    pub(super) eos_token_id: Option<Value>,
}

/// The checked numbers behind the keys; name and token ids are left to the caller.
pub(super) fn check(path: &Path, raw: &Keys) -> Result<ModelConfig, ImportError> {
    let architecture = architecture(path, raw)?;
    check_supported(path, raw)?;
    let size = |key, value, most| size(path, key, value, most);
    let hidden = size("hidden_size", raw.hidden_size, 1 << 17)?;
    let heads = size("num_attention_heads", raw.num_attention_heads, 1 << 12)?;
    let kv_heads = size("num_key_value_heads", raw.num_key_value_heads.or(Some(heads as u64)), 1 << 12)?;
    let head_dim = head_dim(path, raw, architecture, hidden, heads)?;
    if !heads.is_multiple_of(kv_heads) {
        let reason = format!("{heads} attention heads do not divide into {kv_heads} key/value heads");
        return Err(ImportError::unsupported(
            path,
            reason,
            "num_key_value_heads divides num_attention_heads",
        ));
    }
    let raw_rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    Ok(ModelConfig {
        name: String::new(),
        architecture,
        vocab: size("vocab_size", raw.vocab_size, 1 << 24)?,
        hidden,
        intermediate: size("intermediate_size", raw.intermediate_size, 1 << 20)?,
        layers: size("num_hidden_layers", raw.num_hidden_layers, 1 << 10)?,
        heads,
        kv_heads,
        head_dim,
        context: context(path, raw, architecture)?,
        rms_eps: rms_eps(path, raw)?,
        rope: rope::read(path, raw.rope_theta, raw_rope.unwrap_or(&RawRope::default()))?,
        tied: raw.tie_word_embeddings.unwrap_or(false),
        biases: biases(raw, architecture),
        qk_norm: architecture == Architecture::Qwen3,
        bos: None,
        eos: vec![],
        packing: Packing::read(path, raw.quantization_config.as_ref())?,
    })
}

fn architecture(path: &Path, raw: &Keys) -> Result<Architecture, ImportError> {
    let listed = raw.architectures.as_ref().and_then(|all| all.first());
    let name = listed.or(raw.model_type.as_ref()).map_or("", String::as_str);
    match name {
        "LlamaForCausalLM" | "llama" => Ok(Architecture::Llama),
        "MistralForCausalLM" | "mistral" => Ok(Architecture::Mistral),
        "Qwen2ForCausalLM" | "qwen2" => Ok(Architecture::Qwen2),
        "Qwen3ForCausalLM" | "qwen3" => Ok(Architecture::Qwen3),
        _ => {
            let reason = match name {
                "" => "no architecture is named".to_string(),
                name => format!("architecture `{name}` is not supported"),
            };
            let hint =
                "fireq compiles LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM";
            Err(ImportError::unsupported(path, reason, hint))
        }
    }
}

/// Refuses what would change the numbers and is not computed.
fn check_supported(path: &Path, raw: &Keys) -> Result<(), ImportError> {
    let activation = raw.hidden_act.as_deref().unwrap_or("silu");
    if !matches!(activation, "silu" | "swish") {
        let reason = format!("activation `{activation}` is not supported");
        return Err(ImportError::unsupported(path, reason, "fireq computes the activation silu"));
    }
    if let Some(part) = raw.partial_rotary_factor.filter(|part| *part != 1.0) {
        let reason = format!("partial_rotary_factor {part} is not supported");
        return Err(ImportError::unsupported(path, reason, "use a model that rotates whole heads"));
    }
    Ok(())
}

fn size(path: &Path, key: &str, value: Option<u64>, most: usize) -> Result<usize, ImportError> {
    let hint = format!("`{key}` is a whole number from 1 to {most}");
    let refuse = |reason| Err(ImportError::unsupported(path, reason, hint));
    match value {
        None => refuse(format!("`{key}` is missing")),
        Some(n) if n == 0 || n > most as u64 => refuse(format!("`{key}` is {n}")),
        Some(n) => Ok(n as usize),
    }
}

fn head_dim(
    path: &Path,
    raw: &Keys,
    architecture: Architecture,
    hidden: usize,
    heads: usize,
) -> Result<usize, ImportError> {
    let default = match architecture {
        Architecture::Qwen3 => 128,
        _ if hidden.is_multiple_of(heads) => hidden / heads,
        _ if raw.head_dim.is_some() => 0,
        _ => {
            let reason = format!("hidden_size {hidden} does not divide into {heads} heads");
            return Err(ImportError::unsupported(path, reason, "give `head_dim` in config.json"));
        }
    };
    let dim = size(path, "head_dim", raw.head_dim.or(Some(default as u64)), 1 << 10)?;
    if dim % 2 == 1 {
        let reason = format!("head_dim {dim} is odd");
        return Err(ImportError::unsupported(
            path,
            reason,
            "rope rotates pairs of channels: head_dim is even",
        ));
    }
    Ok(dim)
}

/// The window that Mistral's own configuration class assumes when the key is absent.
fn default_window() -> Value {
    4096.into()
}

fn context(path: &Path, raw: &Keys, architecture: Architecture) -> Result<usize, ImportError> {
    let positions = size(path, "max_position_embeddings", raw.max_position_embeddings, 1 << 24)?;
    let slides = match architecture {
        Architecture::Llama => false,
        Architecture::Mistral => true,
        Architecture::Qwen2 | Architecture::Qwen3 => raw.use_sliding_window.unwrap_or(false),
    };
    if !slides {
        return Ok(positions);
    }
    let window = match &raw.sliding_window {
        Value::Null => return Ok(positions),
        window => size(path, "sliding_window", window.as_u64(), 1 << 24)?,
    };
    Ok(positions.min(window))
}

fn rms_eps(path: &Path, raw: &Keys) -> Result<f32, ImportError> {
    let eps = raw.rms_norm_eps.unwrap_or(1e-6);
    if eps.is_finite() && (0.0..1.0).contains(&eps) {
        return Ok(eps as f32);
    }
    Err(ImportError::unsupported(
        path,
        format!("`rms_norm_eps` is {eps}"),
        "it is a small number such as 1e-6",
    ))
}

fn biases(raw: &Keys, architecture: Architecture) -> Biases {
    let attention = raw.attention_bias.unwrap_or(false);
    match architecture {
        Architecture::Llama => Biases { qkv: attention, o: attention, mlp: raw.mlp_bias.unwrap_or(false) },
        Architecture::Mistral => Biases { qkv: false, o: false, mlp: false },
        Architecture::Qwen2 => Biases { qkv: true, o: false, mlp: false },
        Architecture::Qwen3 => Biases { qkv: attention, o: attention, mlp: false },
    }
}
