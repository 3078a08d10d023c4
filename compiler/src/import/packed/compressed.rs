//! The configuration of compressed-tensors.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::super::ImportError;
use super::scheme::{Cover, Keys, Method, ORIGINAL, Packing, bits, cover, filled, refuse};

/// What a group of modules has in common. Activations are a recipe's matter.
#[derive(Deserialize)]
struct Group {
    weights: Option<Weights>,
    output_activations: Option<Value>,
    format: Option<String>,
}

#[derive(Deserialize, PartialEq)]
struct Weights {
    num_bits: Option<u64>,
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric: Option<bool>,
    strategy: Option<String>,
    group_size: Option<i64>,
    block_structure: Option<Value>,
}

/// How weights are packed. Several groups are read as far as weights are the same in all of them.
pub(super) fn read(path: &Path, keys: &Keys) -> Result<Packing, ImportError> {
    let no = |reason: String| Err(refuse(path, format!("compressed-tensors {reason} is not read"), ORIGINAL));
    let sparse = keys.sparsity_config.as_ref().and_then(|config| config["format"].as_str());
    if let Some(format) = sparse.filter(|format| *format != "dense") {
        return no(format!("with sparse weights (`{}`)", format.escape_debug()));
    }
    if filled(keys.transform_config.as_ref()) {
        return no("with transforms".into());
    }
    let parse = |(name, group): (&String, &Value)| {
        let reason =
            |e| format!("the group `{}` of the quantization is not understood: {e}", name.escape_debug());
        Group::deserialize(group).map_err(|e| refuse(path, reason(e), ORIGINAL))
    };
    let groups = keys.config_groups.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if groups.iter().any(|group| filled(group.output_activations.as_ref())) {
        return no("with quantized outputs".into());
    }
    let mut weights = groups.iter().filter_map(|group| group.weights.as_ref());
    let Some(first) = weights.next() else { return no("without quantized weights".into()) };
    let format = keys.format.as_deref().unwrap_or("");
    let other = |group: &Group| group.format.as_deref().is_some_and(|own| own != format);
    if weights.any(|other| other != first) || groups.iter().any(other) {
        return no("with several schemes of weights".into());
    }
    match format {
        "pack-quantized" if first.kind.as_deref().unwrap_or("int") == "int" => integers(path, first),
        "float-quantized" | "naive-quantized" if first.kind.as_deref() == Some("float") => {
            floats(path, first)
        }
        format => no(format!("in the format `{}`", format.escape_debug())),
    }
}

fn integers(path: &Path, weights: &Weights) -> Result<Packing, ImportError> {
    let bits = bits(path, "compressed-tensors", weights.num_bits, &[4, 8])?;
    let method = Method::Compressed { symmetric: weights.symmetric.unwrap_or(true) };
    Ok(Packing { method, bits, cover: strategy(path, weights, &["group", "channel", "tensor"])? })
}

fn floats(path: &Path, weights: &Weights) -> Result<Packing, ImportError> {
    let bits = bits(path, "compressed-tensors of floats", weights.num_bits, &[8])?;
    let cover = strategy(path, weights, &["channel", "tensor", "block"])?;
    Ok(Packing { method: Method::Float { scale: "weight_scale" }, bits, cover })
}

fn strategy(path: &Path, weights: &Weights, known: &[&str]) -> Result<Cover, ImportError> {
    let grouped = || if weights.group_size.is_some() { "group" } else { "tensor" };
    let strategy = weights.strategy.as_deref().unwrap_or_else(grouped);
    let block = || {
        let sides = weights.block_structure.as_ref()?.as_array()?;
        let side = |n: usize| sides.get(n)?.as_u64().filter(|n| (1..=1 << 20).contains(n));
        Some(Cover::Block(side(0)? as usize, side(1)? as usize))
    };
    let found = match strategy {
        _ if !known.contains(&strategy) => None,
        "group" => Some(cover(path, weights.group_size)?),
        "channel" => Some(Cover::Row),
        "tensor" => Some(Cover::Tensor),
        _ => block(),
    };
    let reason = || format!("compressed-tensors with the strategy `{}` is not read", strategy.escape_debug());
    found.ok_or_else(|| refuse(path, reason(), ORIGINAL))
}
