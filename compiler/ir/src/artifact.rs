//! The artifact's manifest: what `manifest.json` says and which files it vouches for.
//!
//! # Versions
//!
//! [`SCHEMA`] counts changes of anything that a reader of an artifact relies on: manifest, plans, storages, calls of compiled kernels,
//! programs. A build writes `SCHEMA`, and reads it and [`OLDEST`], the one before; others are refused by their number, and fields
//! or words that the number does not announce, too. Whoever raises it raises `OLDEST`, says in `compiler/CHANGELOG.md` what changed,
//! and puts an artifact of the version that was into `compiler/tests/artifacts`, whose logits are tested.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::DType;

/// The schema version that this build writes.
pub const SCHEMA: u32 = 4;
/// The oldest schema version that this build reads.
pub const OLDEST: u32 = SCHEMA - 1;
/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The plan's file name.
pub const PLAN: &str = "plan.ir";
/// The final graph's file name.
pub const GRAPH: &str = "graph.ir";
/// The weights' file name.
pub const WEIGHTS: &str = "weights.safetensors";
/// The file name of the plan for GPUs.
pub const CUDA_PLAN: &str = "plan.sm_90a.ir";
/// The file name of weights as that plan stores them.
pub const CUDA_WEIGHTS: &str = "weights.sm_90a.safetensors";
/// The folder of GPU kernels: for each its self-contained source, PTX and cubin.
pub const CUDA_KERNELS: &str = "kernels";
/// The file name of what a GPU is told for every step: which kernels are launched with what.
pub const CUDA_PROGRAM: &str = "kernels/program.json";
/// The CPU code's file name.
pub const CPU_LIBRARY: &str = "cpu/model.so";

/// What `manifest.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this structure and of everything it describes.
    pub schema: u32,
    /// The version of fireq that wrote it; schema 3 does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fireq: Option<String>,
    /// The model's name.
    pub name: String,
    /// The pipeline that quantized it, or a name of one.
    pub recipe: String,
    /// The CPUs it runs on, if it has code for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Its GPU code, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaCode>,
    /// True where only shapes of the weights are known: the file of weights has those that follow from the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub weightless: bool,
    /// What the model is made for.
    pub model: ModelFacts,
    /// For each CPU kernel of the plan, why it is compiled the way it is.
    pub kernels: BTreeMap<String, String>,
    /// BLAKE3 of every file, by path inside the artifact.
    pub files: BTreeMap<String, String>,
}

/// The machines that an artifact's code runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The architecture, as Rust spells it: `x86_64`, `aarch64`.
    pub arch: String,
    /// LLVM's target triple.
    pub triple: String,
    /// Features that the CPU must have, as `is_x86_feature_detected!` spells them.
    pub features: Vec<String>,
}

/// Code for GPUs of one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaCode {
    /// The architecture: `sm_90a`.
    pub arch: String,
    /// What the launches of [`CUDA_PLAN`] need, in the order in which they first need it.
    pub kernels: Vec<CudaKernel>,
}

/// What one or more launches of a plan run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaKernel {
    /// Its name; where it is compiled, also that of the function and of its files. Several entries share a function that
    /// does not depend on their sizes.
    pub name: String,
    /// Whether it is compiled. What is not has no kernel yet, and the artifact does not run on a GPU.
    pub compiled: bool,
    /// Symbols of the launches that it serves; none for what is launched beside the plan. A launch runs every kernel that
    /// serves it, in the order of this list.
    pub launches: Vec<String>,
    /// How many launches of a step these are.
    pub count: usize,
    /// The tokens of a step for which it runs, for attention those of a sequence, for logits the rows that are wanted; any
    /// number where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenRange>,
    /// The keys that the last query of a step's longest row sees, of those for which it runs; any number where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<TokenRange>,
    /// Sizes that it is specialized for.
    pub shape: String,
    /// Threads, and how work is shared among them.
    pub config: String,
    /// Why it is configured like this, or why there is none.
    pub reason: String,
}

/// Numbers of tokens, or of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRange {
    /// The fewest.
    pub from: usize,
    /// The most; none where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<usize>,
}

impl TokenRange {
    /// Whether so many are among them.
    pub fn holds(self, tokens: usize) -> bool {
        self.from <= tokens && self.to.is_none_or(|to| tokens <= to)
    }
}

impl fmt::Display for TokenRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) => write!(f, "{} to {to}", self.from),
            None => write!(f, "{} and more", self.from),
        }
    }
}

impl CudaCode {
    /// What has no kernel yet.
    pub fn missing(&self) -> impl Iterator<Item = &CudaKernel> {
        self.kernels.iter().filter(|kernel| !kernel.compiled)
    }
}

/// Limits and special tokens of a language model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    /// The most positions the model was trained for.
    pub context: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// The token that starts every text, if the model has one.
    pub bos: Option<u32>,
    /// The tokens that end a text.
    pub eos: Vec<u32>,
}

/// A manifest that cannot be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// It is not the JSON of a manifest.
    #[error("not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// It has another version.
    #[error("schema version {found}; this build reads versions {OLDEST} and {SCHEMA}")]
    Schema {
        /// The version in the file.
        found: u64,
    },
    /// A file name leads out of the artifact.
    #[error("file name `{0}` leads out of the artifact")]
    Path(String),
}

impl Manifest {
    /// Reads a manifest: the version first, then the rest; names of files stay inside the artifact.
    pub fn parse(json: &str) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        let version: Version = serde_json::from_str(json)?;
        if !(u64::from(OLDEST)..=u64::from(SCHEMA)).contains(&version.schema) {
            return Err(ManifestError::Schema { found: version.schema });
        }
        let manifest: Manifest = serde_json::from_str(json)?;
        match manifest.files.keys().find(|name| !stays_inside(name)) {
            Some(name) => Err(ManifestError::Path(name.clone())),
            None => Ok(manifest),
        }
    }

    /// The manifest as JSON, the same bytes for the same content.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and numbers have a JSON form");
        text.push('\n');
        text
    }
}

/// True for relative paths of plain names separated by `/`.
fn stays_inside(name: &str) -> bool {
    let plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    name.split('/').all(plain)
}

/// The dtype and shape by which safetensors knows a part of `rows` rows: packed I4 codes are bytes.
pub fn safetensors_type(part: &crate::plan::Part, rows: usize, vector: bool) -> (&'static str, Vec<usize>) {
    let dtype = match part.dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::E4M3 => "F8_E4M3",
        DType::I4 => "U8",
        DType::I32 => "I32",
    };
    let cols = if part.dtype == DType::I4 { part.row_bytes() } else { part.cols };
    let rows = rows.next_multiple_of(part.row_tile);
    (dtype, if vector { vec![cols] } else { vec![rows, cols] })
}

/// The name of a part of a weight in `weights.safetensors`: the weight's own, or `weight.codes`,
/// `.records`, `.scales`, `.outer`.
pub fn part_name(weight: &str, part: &crate::plan::Part) -> String {
    if part.name.is_empty() { weight.to_string() } else { format!("{weight}.{}", part.name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let target = Target {
            arch: "x86_64".into(),
            triple: "x86_64-unknown-linux-gnu".into(),
            features: vec!["avx2".into()],
        };
        let model = ModelFacts { context: 1024, vocab: 512, bos: Some(0), eos: vec![0] };
        let files = BTreeMap::from([("cpu/model.so".to_string(), "00".to_string())]);
        Manifest {
            schema: SCHEMA,
            fireq: None,
            name: "m".into(),
            recipe: "rtn".into(),
            target: Some(target),
            cuda: None,
            weightless: false,
            model,
            kernels: BTreeMap::new(),
            files,
        }
    }

    #[test]
    fn json_round_trips() {
        assert_eq!(Manifest::parse(&manifest().to_json()).unwrap(), manifest());
    }

    #[test]
    fn another_version_is_refused_before_anything_else_is_read() {
        let error = Manifest::parse(r#"{"schema": 7, "novelty": true}"#).unwrap_err();
        assert_eq!(error.to_string(), "schema version 7; this build reads versions 3 and 4");
    }

    #[test]
    fn fields_that_this_version_does_not_know_are_refused() {
        let json = manifest().to_json().replacen("\"name\"", "\"novelty\": 1, \"name\"", 1);
        let error = Manifest::parse(&json).unwrap_err();
        assert!(error.to_string().contains("unknown field `novelty`"), "{error}");
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let names = "../x|/etc/passwd|a/../../b|kernels/../manifest.json||a//b|a/|C:\\x|C:x|./x|a\0b";
        for name in names.split('|') {
            let mut manifest = manifest();
            manifest.files.insert(name.into(), String::new());
            assert!(matches!(Manifest::parse(&manifest.to_json()), Err(ManifestError::Path(_))), "{name}");
        }
    }
}
