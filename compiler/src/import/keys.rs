//! The keys of `config.json`, of transformers 4 and 5, and the checks that make them a [`ModelConfig`].

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::families::{Bias, FAMILIES, Family, Window, family, needs};
use super::rope_keys::{self, RawRope};
use super::{Biases, ImportError, ModelConfig, Packing};

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
    original_max_position_embeddings: Option<f64>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    attention_out_bias: Option<bool>,
    mlp_bias: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Value>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<u64>,
    layer_types: Option<Vec<String>>,
    text_config: Option<Value>,
    quantization_config: Option<Value>,
    pub(super) bos_token_id: Option<Value>,
    pub(super) eos_token_id: Option<Value>,
}

/// The checked numbers behind the keys, for sequences of up to `asked` tokens; name and token ids are left to the caller.
pub(super) fn check(path: &Path, raw: &Keys, asked: Option<usize>) -> Result<ModelConfig, ImportError> {
    let family = named_family(path, raw)?;
    check_supported(path, raw)?;
    let size = |key, value, most| size(path, key, value, most);
    let hidden = size("hidden_size", raw.hidden_size, 1 << 17)?;
    let (heads, kv_heads) = heads(path, raw)?;
    let head_dim = head_dim(path, raw, family, hidden, heads)?;
    let positions = size("max_position_embeddings", raw.max_position_embeddings, 1 << 24)?;
    let absent = RawRope::default();
    let rope = rope_keys::Trained {
        raw: raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref()).unwrap_or(&absent),
        theta: raw.rope_theta.or(family.theta),
        positions,
        original: raw.original_max_position_embeddings,
        head_dim,
        old_names: family.fused,
    };
    let context = context(path, raw, family, &rope, asked)?;
    Ok(ModelConfig {
        name: String::new(),
        family,
        vocab: size("vocab_size", raw.vocab_size, 1 << 24)?,
        hidden,
        intermediate: size("intermediate_size", raw.intermediate_size, 1 << 20)?,
        layers: size("num_hidden_layers", raw.num_hidden_layers, 1 << 10)?,
        heads,
        kv_heads,
        head_dim,
        context,
        rms_eps: rms_eps(path, raw)?,
        rope: rope_keys::read(path, &rope, context)?,
        tied: raw.tie_word_embeddings.unwrap_or(false),
        biases: biases(raw, family),
        bos: None,
        eos: vec![],
        packing: Packing::read(path, raw.quantization_config.as_ref())?,
    })
}

fn named_family(path: &Path, raw: &Keys) -> Result<&'static Family, ImportError> {
    let architecture = raw.architectures.as_ref().and_then(|all| all.first()).map(String::as_str);
    let model_type = raw.model_type.as_deref();
    if let Some(family) = family(architecture, model_type) {
        return Ok(family);
    }
    let reason = match architecture.or(model_type) {
        None | Some("") => "no architecture is named".to_string(),
        Some(name) => match needs(name, model_type) {
            Some(needs) => format!("architecture `{name}` is not supported: {needs}"),
            None if raw.text_config.is_some() => {
                format!(
                    "architecture `{name}` is not supported: beside the language model of its `text_config` it has other parts"
                )
            }
            None => format!("architecture `{name}` is not supported"),
        },
    };
    let all: Vec<&str> = FAMILIES.iter().map(|family| family.architecture).collect();
    let (last, others) = all.split_last().expect("the table has rows");
    let hint = format!("fireq compiles {} and {last}", others.join(", "));
    Err(ImportError::unsupported(path, reason, hint))
}

/// Refuses what would change the numbers and is not computed.
fn check_supported(path: &Path, raw: &Keys) -> Result<(), ImportError> {
    let activation = raw.hidden_act.as_deref().unwrap_or("silu");
    if !matches!(activation, "silu" | "swish") {
        let reason = format!("activation `{activation}` is not supported");
        return Err(ImportError::unsupported(path, reason, "fireq computes the activation silu"));
    }
    if let Some(part) = raw.partial_rotary_factor.filter(|part| *part != 1.0) {
        return Err(rope_keys::partial(path, part));
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

/// Query heads, and those of keys and values.
fn heads(path: &Path, raw: &Keys) -> Result<(usize, usize), ImportError> {
    let heads = size(path, "num_attention_heads", raw.num_attention_heads, 1 << 12)?;
    let kv_heads = raw.num_key_value_heads.or(Some(heads as u64));
    let kv_heads = size(path, "num_key_value_heads", kv_heads, 1 << 12)?;
    if heads.is_multiple_of(kv_heads) {
        return Ok((heads, kv_heads));
    }
    let reason = format!("{heads} attention heads do not divide into {kv_heads} key/value heads");
    Err(ImportError::unsupported(path, reason, "num_key_value_heads divides num_attention_heads"))
}

fn head_dim(
    path: &Path,
    raw: &Keys,
    family: &Family,
    hidden: usize,
    heads: usize,
) -> Result<usize, ImportError> {
    let given = raw.head_dim.or(family.head_dim);
    if given.is_none() && !hidden.is_multiple_of(heads) {
        let reason = format!("hidden_size {hidden} does not divide into {heads} heads");
        return Err(ImportError::unsupported(path, reason, "give `head_dim` in config.json"));
    }
    let dim = size(path, "head_dim", given.or(Some((hidden / heads) as u64)), 1 << 10)?;
    if dim % 2 == 1 {
        let reason = format!("head_dim {dim} is odd");
        let hint = "rope rotates pairs of channels: head_dim is even";
        return Err(ImportError::unsupported(path, reason, hint));
    }
    Ok(dim)
}

/// A key that is there, with null as a value.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// The most positions a sequence can have: what was asked for, or what the model was trained for. A window caps both, as within it
/// nothing slides.
fn context(
    path: &Path,
    raw: &Keys,
    family: &Family,
    rope: &rope_keys::Trained<'_>,
    asked: Option<usize>,
) -> Result<usize, ImportError> {
    let window = window(path, raw, family)?.unwrap_or(usize::MAX);
    let Some(asked) = asked else { return Ok(rope.positions.min(window)) };
    let most = rope.reach().min(window);
    if (1..=most).contains(&asked) {
        return Ok(asked);
    }
    let reason = format!("a context of {asked} was asked for, the model has positions for {most}");
    let hint = if most == window {
        "within `sliding_window` every layer sees all tokens; beyond it they differ, which is not computed"
    } else {
        "--context caps `max_position_embeddings`; only yarn and dynamic rope reach beyond it, by their `factor`"
    };
    Err(ImportError::unsupported(path, reason, hint))
}

/// The tokens that layers see, where some do not see all.
fn window(path: &Path, raw: &Keys, family: &Family) -> Result<Option<usize>, ImportError> {
    let (slides, absent) = match family.window {
        Window::Never => (false, None),
        Window::Size(absent) => (true, absent),
        Window::Switched => {
            let none =
                raw.max_window_layers.zip(raw.num_hidden_layers).is_some_and(|(from, all)| from >= all);
            (raw.use_sliding_window.unwrap_or(false) && !none, Some(4096))
        }
    };
    let full = |types: &Vec<String>| types.iter().all(|kind| kind == "full_attention");
    if !slides || raw.layer_types.as_ref().is_some_and(full) {
        return Ok(None);
    }
    match (&raw.sliding_window, absent) {
        (Some(Value::Null), _) | (None, None) => Ok(None),
        (None, Some(absent)) => Ok(Some(absent as usize)),
        (Some(window), _) => size(path, "sliding_window", window.as_u64(), 1 << 24).map(Some),
    }
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

fn biases(raw: &Keys, family: &Family) -> Biases {
    let has = |bias: Bias| match bias {
        Bias::Never => false,
        Bias::Always => true,
        Bias::Attention => raw.attention_bias.unwrap_or(false),
        Bias::UnlessAttention => raw.attention_bias.unwrap_or(true),
        Bias::AttentionOut => raw.attention_out_bias.unwrap_or(false),
        Bias::Mlp => raw.mlp_bias.unwrap_or(false),
    };
    Biases { qkv: has(family.qkv), o: has(family.o), mlp: has(family.mlp) }
}
