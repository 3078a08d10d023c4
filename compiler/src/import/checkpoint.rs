//! The safetensors files of a model directory, mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fireq_ir::ConstData;
use fireq_runtime::Mapped;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use super::ImportError;
use super::config::read_json;
use crate::source::{GGUF, is_gguf};

/// Every tensor of a checkpoint by name, with its bytes mapped.
#[derive(Debug)]
pub struct Checkpoint {
    /// The tensors.
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// A tensor as a file holds it. The range lies inside the file and is as long as dtype and shape say.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    file: Arc<Mapped>,
    range: Range<usize>,
}

impl StoredTensor {
    /// The tensor's bytes as data of a constant.
    pub fn data(&self) -> ConstData {
        ConstData::shared(self.file.clone(), self.range.clone())
    }

    /// Some of its rows, as a tensor of their own in the same mapping.
    ///
    /// # Panics
    ///
    /// If there are no such rows.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let all = self.shape[0];
        assert!(rows.start <= rows.end && rows.end <= all, "rows {rows:?} of {all}");
        let row = self.range.len() / all;
        let range = self.range.start + rows.start * row..self.range.start + rows.end * row;
        let shape = [&[rows.len()], &self.shape[1..]].concat();
        StoredTensor { dtype: self.dtype, shape, file: self.file.clone(), range }
    }
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Weights as `torch.save` pickles them.
const PICKLED: [&str; 2] = ["pytorch_model.bin.index.json", "pytorch_model.bin"];

impl Checkpoint {
    /// Maps the tensors of `dir`: of `model.safetensors`, or of the shards its index names.
    pub fn open(dir: &Path) -> Result<Self, ImportError> {
        if Self::is_single(dir) {
            let mut tensors = BTreeMap::new();
            open_file(&dir.join(SINGLE), &mut tensors)?;
            return Ok(Checkpoint { tensors });
        }
        if let Some(index) = Index::read(dir)? {
            return index.open(dir);
        }
        if has_gguf(dir) {
            return Err(ImportError::unsupported(
                dir,
                "there is GGUF, which is not read, and no safetensors",
                GGUF,
            ));
        }
        let reason = match Self::other_format(dir) {
            Some(name) => format!("the weights are in `{name}`, and neither in {SINGLE} nor in shards of it"),
            None => format!("there is neither {SINGLE} nor {INDEX}"),
        };
        let hint = "fireq reads safetensors; with only pytorch_model.bin, load the model in transformers and \
                    save it with save_pretrained(dir, safe_serialization=True)";
        Err(ImportError::unsupported(dir, reason, hint))
    }

    /// Whether all tensors are in one file.
    pub(super) fn is_single(dir: &Path) -> bool {
        dir.join(SINGLE).exists()
    }

    /// A file that has weights in a format that is not read.
    pub(super) fn other_format(dir: &Path) -> Option<&'static str> {
        PICKLED.into_iter().find(|name| dir.join(name).exists())
    }
}

fn has_gguf(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|files| files.flatten().any(|file| is_gguf(&file.path())))
}

/// Which shard has which tensor. Every shard is a file of the model's directory.
#[derive(Deserialize)]
pub(super) struct Index {
    weight_map: BTreeMap<String, String>,
    #[serde(default)]
    metadata: IndexMetadata,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Default, Deserialize)]
struct IndexMetadata {
    total_size: Option<f64>,
}

impl Index {
    /// The index of a directory, if it has one.
    pub fn read(dir: &Path) -> Result<Option<Self>, ImportError> {
        let path = dir.join(INDEX);
        if !path.exists() {
            return Ok(None);
        }
        let index = Index { path, ..read_json(&dir.join(INDEX))? };
        index.shards().into_iter().try_for_each(|shard| check_shard_name(&index.path, shard))?;
        Ok(Some(index))
    }

    /// The shards, each once.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// The tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.weight_map.keys().map(String::as_str)
    }

    /// Bytes of all tensors.
    pub fn total_size(&self) -> Option<u64> {
        self.metadata.total_size.filter(|bytes| *bytes > 0.0).map(|bytes| bytes as u64)
    }

    fn open(&self, dir: &Path) -> Result<Checkpoint, ImportError> {
        let mut tensors = BTreeMap::new();
        self.shards().into_iter().try_for_each(|shard| open_file(&dir.join(shard), &mut tensors))?;
        match self.weight_map.iter().find(|(name, _)| !tensors.contains_key(*name)) {
            None => Ok(Checkpoint { tensors }),
            Some((name, shard)) => {
                let reason = format!("tensor `{name}` is not in `{shard}`, where the index puts it");
                let hint = "download the shards and their index again";
                Err(ImportError::unsupported(&self.path, reason, hint))
            }
        }
    }
}

/// A shard is a file of the model directory itself: an index must not reach anything else.
fn check_shard_name(index: &Path, shard: &str) -> Result<(), ImportError> {
    let plain = !shard.is_empty() && !shard.contains(['/', '\\', ':', '\0']) && !matches!(shard, "." | "..");
    if plain {
        return Ok(());
    }
    let reason = format!("the shard `{}` is outside the model directory", shard.escape_debug());
    Err(ImportError::unsupported(index, reason, "shards are plain file names; do not trust this checkpoint"))
}

fn open_file(path: &Path, tensors: &mut BTreeMap<String, StoredTensor>) -> Result<(), ImportError> {
    for (name, tensor) in stored(path)?.tensors {
        if tensors.insert(name.clone(), tensor).is_some() {
            let reason = format!("tensor `{name}` is in another shard too");
            return Err(ImportError::unsupported(path, reason, "download the shards and their index again"));
        }
    }
    Ok(())
}

/// A safetensors file: its tensors by name, mapped, and the texts of its metadata.
pub(crate) struct Stored {
    pub tensors: BTreeMap<String, StoredTensor>,
    pub metadata: BTreeMap<String, String>,
}

/// Maps a safetensors file.
pub(crate) fn stored(path: &Path) -> Result<Stored, ImportError> {
    let file =
        Arc::new(Mapped::open(path).map_err(|source| ImportError::Read { path: path.into(), source })?);
    let bytes: &[u8] = &file;
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| malformed(path, bytes, &e))?;
    let data = size_of::<u64>() + header;
    let tensor = |(name, info): (String, &TensorInfo)| {
        let range = data + info.data_offsets.0..data + info.data_offsets.1;
        (name, StoredTensor { dtype: info.dtype, shape: info.shape.clone(), file: file.clone(), range })
    };
    let tensors = metadata.tensors().into_iter().map(tensor).collect();
    let metadata = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Stored { tensors, metadata })
}

fn malformed(path: &Path, bytes: &[u8], error: &SafeTensorError) -> ImportError {
    let reason = match error {
        SafeTensorError::HeaderTooSmall => {
            format!("the file is truncated: {} bytes hold no header", bytes.len())
        }
        SafeTensorError::HeaderTooLarge => "the file claims a header of more than 100 MB".into(),
        SafeTensorError::InvalidHeaderLength => {
            format!("the file is truncated: its header is longer than its {} bytes", bytes.len())
        }
        SafeTensorError::InvalidHeader(_) | SafeTensorError::InvalidHeaderDeserialization(_) => {
            format!("the header is broken: {error}")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!(
                "the file has {} bytes, its header claims another number: it was cut off or has trailing data",
                bytes.len()
            )
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor `{name}` overlaps another or leaves a hole before it")
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's shape and size disagree".into(),
        SafeTensorError::ValidationOverflow => "a tensor claims an impossible size".into(),
        other => format!("the file is not valid safetensors: {other}"),
    };
    ImportError::Unsupported {
        path: PathBuf::from(path),
        reason,
        hint: "download the file again; it was cut off or altered".into(),
    }
}
