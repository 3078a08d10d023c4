//! `config.json` of transformers 4 and 5 as checked numbers.

use std::path::Path;

use fireq_runtime::bounded;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::keys::{Keys, check};
use super::{Family, ImportError, Packing, Rope};

/// Sizes and switches of a model, checked: sizes are positive and bounded, so that products of two fit `usize`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Name of the directory.
    pub name: String,
    /// The family, which says where it differs from Llama.
    pub family: &'static Family,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between up and down projection.
    pub intermediate: usize,
    /// Number of decoder blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels of a head, even.
    pub head_dim: usize,
    /// Most positions a sequence can have, as asked for at import or as trained for. A sliding window caps it: within the window nothing
    /// slides.
    pub context: usize,
    /// Epsilon of every RMS norm.
    pub rms_eps: f32,
    /// The rotary embedding.
    pub rope: Rope,
    /// True when the output projection is the embedding table.
    pub tied: bool,
    /// Which linears have biases.
    pub biases: Biases,
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// How weights are packed that are codes already.
    pub packing: Option<Packing>,
}

/// Which linears have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Biases {
    /// Query, key and value projections.
    pub qkv: bool,
    /// The projection after attention.
    pub o: bool,
    /// Gate, up and down projections.
    pub mlp: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawGeneration {
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
}

impl ModelConfig {
    /// Reads `config.json` of `dir`, and the token ids of `generation_config.json` where there is one.
    pub fn read(dir: &Path) -> Result<Self, ImportError> {
        Self::read_for(dir, None)
    }

    /// As [`ModelConfig::read`], for sequences of up to `context` tokens instead of as many as the model was trained for.
    pub fn read_for(dir: &Path, context: Option<usize>) -> Result<Self, ImportError> {
        let path = dir.join("config.json");
        let raw: Keys = read_json(&path)?;
        let generation_path = dir.join("generation_config.json");
        let generation =
            if generation_path.exists() { read_json(&generation_path)? } else { RawGeneration::default() };
        let mut config = check(&path, &raw, context)?;
        config.name = directory_name(dir);
        if config.packing.is_none() {
            config.packing = Packing::beside(dir)?;
        }
        config.bos = ids(generation.bos_token_id.as_ref().or(raw.bos_token_id.as_ref())).first().copied();
        config.eos = ids(generation.eos_token_id.as_ref().or(raw.eos_token_id.as_ref()));
        Ok(config)
    }

    /// The configuration that a text is, named after its file (a `config.json` after its directory), with the token ids that it gives.
    pub fn parse(path: &Path, text: &[u8], context: Option<usize>) -> Result<Self, ImportError> {
        let raw: Keys = parse_json(path, text)?;
        let mut config = check(path, &raw, context)?;
        config.name = match path.file_stem() {
            Some(name) if name != "config" => name.to_string_lossy().into_owned(),
            _ => directory_name(path.parent().unwrap_or(Path::new("."))),
        };
        config.bos = ids(raw.bos_token_id.as_ref()).first().copied();
        config.eos = ids(raw.eos_token_id.as_ref());
        Ok(config)
    }

    /// What products of queries and keys are multiplied by: 1/√`head_dim`, and the square of rope's attention factor.
    pub fn attention_scale(&self) -> f32 {
        (self.rope.score_factor() / (self.head_dim as f64).sqrt()) as f32
    }

    /// Rows of the query projection.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of the key and of the value projection: channels of a cache row.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Parses a JSON file of a model directory.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    let text = bounded::read(path).map_err(|source| ImportError::Read { path: path.into(), source })?;
    parse_json(path, &text)
}

fn parse_json<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(text).map_err(|source| ImportError::Json { path: path.into(), source })
}

fn directory_name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.into());
    full.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

/// Token ids that a key gives: one, several, or none (null, or the −1 some models write for it).
fn ids(value: Option<&Value>) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(several)) => several.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => vec![],
    }
}
