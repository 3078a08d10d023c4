//! What of `config.json` outliers depend on, and the configuration of the twin.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

pub const FILE: &str = "config.json";

/// Sizes and switches, with the whole configuration that they come from.
pub struct Config {
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Most positions.
    pub context: usize,
    /// `llama`, `mistral`, `qwen2` or `qwen3`.
    pub family: String,
    /// Base of the rope frequencies, and their type.
    pub theta: f64,
    pub rope_type: String,
    raw: Map<String, Value>,
}

impl Config {
    pub fn read(model: &Path) -> Result<Config, String> {
        let path = model.join(FILE);
        let text = fs::read_to_string(&path)
            .map_err(|e| format!("{} is not a model directory: {FILE}: {e}", model.display()))?;
        let raw: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        parse(raw).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Queries and keys are normalized per head.
    pub fn qk_norm(&self) -> bool {
        self.family == "qwen3"
    }

    /// Rows and columns of a tensor of a block, by its name there; one column for a vector.
    pub fn shape(&self, part: &str) -> [usize; 2] {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let rows = match part.rsplit_once('.').map_or(part, |(module, _)| module) {
            "self_attn.q_proj" => q,
            "self_attn.k_proj" | "self_attn.v_proj" => kv,
            "self_attn.q_norm" | "self_attn.k_norm" => self.head_dim,
            "mlp.gate_proj" | "mlp.up_proj" => self.intermediate,
            _ => self.hidden,
        };
        let columns = match part {
            "self_attn.o_proj.weight" => q,
            "mlp.down_proj.weight" => self.intermediate,
            _ if part.ends_with("_proj.weight") => self.hidden,
            _ => 1,
        };
        [rows, columns]
    }

    /// The twin has heads of `head_dim` channels, whose frequencies are those of rope type `llama3`.
    pub fn set_heads(&mut self, head_dim: usize, theta: f64, scaling: Map<String, Value>) {
        self.raw.insert("head_dim".into(), json!(head_dim));
        if self.family == "llama" {
            self.raw.insert("attention_bias".into(), json!(true));
        }
        let mut rope = scaling;
        rope.insert("rope_type".into(), json!("llama3"));
        rope.insert("rope_theta".into(), json!(theta));
        let current = self.raw.contains_key("rope_parameters");
        if !current {
            self.raw.insert("rope_theta".into(), json!(theta));
        }
        let key = if current { "rope_parameters" } else { "rope_scaling" };
        self.raw.insert(key.into(), Value::Object(rope));
    }

    /// Writes the configuration for weights in f32.
    pub fn write(&self, dir: &Path) -> Result<(), String> {
        let mut raw = self.raw.clone();
        // transformers 4 and 5 name it differently, and newer ones read both.
        let key = if raw.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        for key in [key, "torch_dtype"] {
            raw.entry(key).and_modify(|dtype| *dtype = json!("float32"));
        }
        raw.insert(key.into(), json!("float32"));
        let path = dir.join(FILE);
        let text = format!("{:#}\n", Value::Object(raw));
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

fn parse(raw: Map<String, Value>) -> Result<Config, String> {
    let size = |key: &str| raw.get(key).filter(|v| !v.is_null()).map(|v| positive(key, v)).transpose();
    let needed = |key: &str| size(key)?.ok_or_else(|| format!("`{key}` is missing"));
    let (hidden, heads) = (needed("hidden_size")?, needed("num_attention_heads")?);
    let kv_heads = size("num_key_value_heads")?.unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(format!("{heads} attention heads do not divide into {kv_heads} key/value heads"));
    }
    let family = family(&raw)?;
    let default = if family == "qwen3" { 128 } else { hidden / heads };
    let head_dim = size("head_dim")?.unwrap_or(default);
    if head_dim == 0 || head_dim % 2 == 1 {
        return Err(format!("`head_dim` is {head_dim}, which is no number of pairs"));
    }
    let rope = ["rope_parameters", "rope_scaling"].iter().find_map(|key| raw.get(*key)?.as_object());
    let of_rope = |key: &str| rope.and_then(|rope| rope.get(key));
    let theta = of_rope("rope_theta").or(raw.get("rope_theta")).and_then(Value::as_f64).unwrap_or(10000.0);
    let rope_type = of_rope("rope_type").or(of_rope("type")).and_then(Value::as_str).unwrap_or("default");
    Ok(Config {
        layers: needed("num_hidden_layers")?,
        hidden,
        intermediate: needed("intermediate_size")?,
        heads,
        kv_heads,
        head_dim,
        context: needed("max_position_embeddings")?,
        family,
        theta,
        rope_type: rope_type.into(),
        raw,
    })
}

fn positive(key: &str, value: &Value) -> Result<usize, String> {
    let size = value.as_u64().filter(|n| (1..=1 << 24).contains(n));
    size.map(|n| n as usize).ok_or_else(|| format!("`{key}` is {value}, not a size"))
}

fn family(raw: &Map<String, Value>) -> Result<String, String> {
    let name = raw.get("model_type").and_then(Value::as_str).unwrap_or("");
    if ["llama", "mistral", "qwen2", "qwen3"].contains(&name) {
        return Ok(name.into());
    }
    Err(format!("model_type `{name}` is not one of llama, mistral, qwen2, qwen3"))
}
