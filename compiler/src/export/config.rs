//! `config.json` of an export: the model's own, with what is different.

use std::collections::BTreeMap;
use std::path::Path;

use fireq_ir::DType;
use serde_json::{Map, Value, json};

use super::error::at;
use super::scheme::{Schemes, module};
use super::{ExportError, scheme::Scheme};
use crate::import::ImportError;

/// The file.
pub(super) const FILE: &str = "config.json";

/// The keys of the model's configuration in `dir`.
pub(super) fn read(dir: &Path) -> Result<Map<String, Value>, ExportError> {
    let path = dir.join(FILE);
    let text = std::fs::read(&path).map_err(at(&path))?;
    serde_json::from_slice(&text).map_err(|source| ImportError::Json { path, source }.into())
}

/// The configuration of an export whose numbers are of `dtype`, as text. A model that is not `tied` has a head of its own.
pub(super) fn text(
    mut config: Map<String, Value>,
    dtype: DType,
    tied: bool,
    schemes: Option<&Schemes>,
) -> String {
    // The key is `dtype` since transformers 5.
    let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    config.remove("torch_dtype");
    config.insert(key.into(), json!(if dtype == DType::BF16 { "bfloat16" } else { "float32" }));
    config.insert("tie_word_embeddings".into(), json!(tied));
    config.remove("quantization_config");
    if let Some(schemes) = schemes {
        config.insert("quantization_config".into(), quantization(schemes));
    }
    format!("{:#}\n", Value::Object(config))
}

/// What compressed-tensors is told of the linears.
fn quantization(schemes: &Schemes) -> Value {
    let mut groups: BTreeMap<Scheme, Vec<String>> = BTreeMap::new();
    for (weight, scheme) in &schemes.packed {
        groups.entry(*scheme).or_default().push(module(weight));
    }
    // A class would match everything before names are looked at.
    let one = groups.len() == 1;
    let group = |(n, (scheme, modules)): (usize, (Scheme, Vec<String>))| {
        let targets = if one { vec!["Linear".to_string()] } else { modules };
        (format!("group_{n}"), group(scheme, &targets))
    };
    let groups: Map<String, Value> = groups.into_iter().enumerate().map(group).collect();
    json!({
        "quant_method": "compressed-tensors",
        "format": PACKED,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": schemes.ignored,
        "kv_cache_scheme": null,
    })
}

const PACKED: &str = "pack-quantized";

fn group(scheme: Scheme, targets: &[String]) -> Value {
    let inputs = json!({
        "num_bits": 8, "type": "float", "symmetric": true, "strategy": "token", "dynamic": true,
    });
    json!({
        "format": PACKED,
        "targets": targets,
        "weights": {
            "num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": scheme.group,
            "dynamic": false,
        },
        "input_activations": if scheme.inputs { inputs } else { Value::Null },
        "output_activations": null,
    })
}
