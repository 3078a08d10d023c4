//! What a configuration says of packed weights, checked.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::ImportError;
use super::super::config::read_json;
use super::compressed;

/// How weights are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    pub(super) method: Method,
    /// Bits of a code.
    pub(super) bits: u32,
    /// What a scale covers.
    pub(super) cover: Cover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// By the version of the format.
    Gptq {
        version: u32,
    },
    Awq,
    /// Integers; with zero points where they are not symmetric.
    Compressed {
        symmetric: bool,
    },
    /// FP8, the scale being in the tensor of this suffix.
    Float {
        scale: &'static str,
    },
}

/// What a scale covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// The whole weight.
    Tensor,
    /// A row.
    Row,
    /// Channels of a row.
    Group(usize),
    /// Rows by channels.
    Block(usize, usize),
}

/// Files that older tools write instead of a key of `config.json`, and the method that they are for.
const BESIDE: [(&str, &str); 2] = [("quantize_config.json", "gptq"), ("quant_config.json", "awq")];

impl Packing {
    /// What `quantization_config` says, if there is one.
    pub(in super::super) fn read(path: &Path, value: Option<&Value>) -> Result<Option<Self>, ImportError> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        let keys = keys(path, value)?;
        let method = keys.quant_method.clone().unwrap_or_default();
        packing(path, &method, &keys, value).map(Some)
    }

    /// What a file beside `config.json` says, if there is one.
    pub(in super::super) fn beside(dir: &Path) -> Result<Option<Self>, ImportError> {
        for (name, method) in BESIDE {
            let path = dir.join(name);
            if path.is_file() {
                let value: Value = read_json(&path)?;
                let keys = keys(&path, &value)?;
                let method = keys.quant_method.clone().unwrap_or_else(|| method.into());
                return packing(&path, &method, &keys, &value).map(Some);
            }
        }
        Ok(None)
    }
}

/// The keys of all methods that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Keys {
    quant_method: Option<String>,
    bits: Option<u64>,
    w_bit: Option<u64>,
    group_size: Option<i64>,
    q_group_size: Option<i64>,
    checkpoint_format: Option<String>,
    version: Option<Value>,
    pub format: Option<String>,
    is_marlin_format: Option<bool>,
    dynamic: Option<Value>,
    pack_dtype: Option<String>,
    kv_cache_scheme: Option<Value>,
    weight_block_size: Option<Vec<u64>>,
    expert_dtype: Option<String>,
    scale_fmt: Option<String>,
    pub config_groups: Map<String, Value>,
    pub sparsity_config: Option<Value>,
    pub transform_config: Option<Value>,
}

fn keys(path: &Path, value: &Value) -> Result<Keys, ImportError> {
    Keys::deserialize(value)
        .map_err(|e| refuse(path, format!("the quantization is not understood: {e}"), ORIGINAL))
}

/// The last resort.
pub(super) const ORIGINAL: &str = "compile the original f32, f16 or bf16 checkpoint";

pub(super) fn refuse(path: &Path, reason: impl Into<String>, hint: &str) -> ImportError {
    ImportError::unsupported(path, reason.into(), hint.to_string())
}

fn packing(path: &Path, method: &str, keys: &Keys, value: &Value) -> Result<Packing, ImportError> {
    if !value.is_object() || method.is_empty() {
        return Err(refuse(path, "the quantization names no quant_method", ORIGINAL));
    }
    if filled(keys.kv_cache_scheme.as_ref()) {
        let reason = format!("{method} with a kv_cache_scheme is not read");
        return Err(refuse(
            path,
            reason,
            "use a checkpoint whose weights alone are quantized: recipes quantize caches",
        ));
    }
    match method {
        "gptq" => gptq(path, keys),
        "awq" => awq(path, keys),
        "compressed-tensors" => compressed::read(path, keys),
        "fp8" => fp8(path, keys),
        other => {
            Err(refuse(path, format!("the checkpoint is quantized by `{}`", other.escape_debug()), OTHERS))
        }
    }
}

const OTHERS: &str = "fireq reads gptq, awq, compressed-tensors and fp8; of others, compile the original f32, f16 or bf16 checkpoint";

/// Whether a key says something.
pub(super) fn filled(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Object(keys)) => !keys.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

fn gptq(path: &Path, keys: &Keys) -> Result<Packing, ImportError> {
    let format = keys.checkpoint_format.as_ref().or(keys.format.as_ref()).map_or("gptq", String::as_str);
    let version = match format.to_ascii_lowercase().as_str() {
        "gptq" if keys.is_marlin_format != Some(true) => 1,
        "gptq_v2" => 2,
        other => {
            let other = if other == "gptq" { "marlin" } else { other };
            let reason = format!("gptq in the layout `{}` is not read", other.escape_debug());
            return Err(refuse(
                path,
                reason,
                "save it in the layout gptq or gptq_v2, which do not depend on a kernel",
            ));
        }
    };
    if filled(keys.dynamic.as_ref()) {
        let reason = "gptq with rules of its own for some modules (`dynamic`) is not read";
        return Err(refuse(path, reason, ORIGINAL));
    }
    if let Some(other) = keys.pack_dtype.as_ref().filter(|dtype| *dtype != "int32") {
        let reason = format!("gptq packed into {} is not read", other.escape_debug());
        return Err(refuse(path, reason, "pack codes into int32"));
    }
    let bits = bits(path, "gptq", keys.bits, &[4, 8])?;
    Ok(Packing { method: Method::Gptq { version }, bits, cover: cover(path, keys.group_size)? })
}

fn awq(path: &Path, keys: &Keys) -> Result<Packing, ImportError> {
    let version = keys.version.as_ref().and_then(Value::as_str);
    let format = version.or(keys.checkpoint_format.as_deref()).or(keys.format.as_deref()).unwrap_or("gemm");
    if !format.eq_ignore_ascii_case("gemm") {
        let reason = format!("awq in the layout `{}` is not read", format.escape_debug());
        let hint =
            "save it in the layout gemm: others are made for one kernel and do not say how rows are padded";
        return Err(refuse(path, reason, hint));
    }
    let bits = bits(path, "awq", keys.bits.or(keys.w_bit), &[4])?;
    let cover = cover(path, keys.group_size.or(keys.q_group_size))?;
    Ok(Packing { method: Method::Awq, bits, cover })
}

/// That of `DeepSeek`, and of transformers.
fn fp8(path: &Path, keys: &Keys) -> Result<Packing, ImportError> {
    let float = |key: &Option<String>, known: &str| key.as_ref().is_none_or(|found| found == known);
    if !float(&keys.scale_fmt, "float") && !float(&keys.scale_fmt, "ue8m0")
        || !float(&keys.expert_dtype, "fp8")
    {
        return Err(refuse(path, "fp8 with scales or experts of other formats is not read", ORIGINAL));
    }
    let cover = match keys.weight_block_size.as_deref() {
        None => Cover::Tensor,
        Some([rows, cols]) if (1..=1 << 20).contains(rows) && (1..=1 << 20).contains(cols) => {
            Cover::Block(*rows as usize, *cols as usize)
        }
        Some(_) => return Err(refuse(path, "`weight_block_size` is not two positive numbers", ORIGINAL)),
    };
    Ok(Packing { method: Method::Float { scale: "weight_scale_inv" }, bits: 8, cover })
}

pub(super) fn bits(path: &Path, method: &str, bits: Option<u64>, known: &[u32]) -> Result<u32, ImportError> {
    let found = known.iter().copied().find(|known| Some(u64::from(*known)) == bits);
    let names = known.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let hint = format!("fireq reads {method} with {names} bits; {ORIGINAL}");
    let reason = match bits {
        Some(bits) => format!("{method} with {bits} bits is not read"),
        None => format!("{method} without a number of bits is not read"),
    };
    found.ok_or_else(|| refuse(path, reason, &hint))
}

/// The channels of a scale; −1 stands for a row.
pub(super) fn cover(path: &Path, group: Option<i64>) -> Result<Cover, ImportError> {
    match group {
        Some(-1) => Ok(Cover::Row),
        Some(n @ 1..=0x10_0000) => Ok(Cover::Group(n as usize)),
        _ => {
            let found = group.map_or("is missing".into(), |n| format!("is {n}"));
            Err(refuse(
                path,
                format!("the quantization's group_size {found}"),
                "it is a positive number, or -1 for whole rows",
            ))
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bits) = match self.method {
            Method::Gptq { .. } => ("gptq", self.bits),
            Method::Awq => ("awq", self.bits),
            Method::Compressed { .. } => ("compressed-tensors", self.bits),
            Method::Float { .. } => return write!(f, "fp8{}", self.cover),
        };
        write!(f, "{name}, {bits} bits{}", self.cover)
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cover::Tensor => f.write_str(" under one scale"),
            Cover::Row => f.write_str(" in rows"),
            Cover::Group(n) => write!(f, " in groups of {n}"),
            Cover::Block(rows, cols) => write!(f, " in blocks of {rows} by {cols}"),
        }
    }
}
