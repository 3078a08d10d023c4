//! The safetensors files of a model directory, mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fireq_ir::{ByteSource, ConstData};
use memmap2::Mmap;
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
}

/// A read-only mapped file.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
}

impl ByteSource for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    #[cfg(unix)]
    fn release(&self, range: Range<usize>) {
        let inside = around(&self.map, &range);
        // SAFETY: the mapping is shared and never written, so dropped pages come back from the file unchanged.
        let advised = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, inside.start, inside.len())
        };
        // Advice that is not taken costs memory, not correctness.
        drop(advised);
    }
}

/// A range and what may have been mapped along with it: kernels map what surrounds a page that is read, as far as one table of
/// pages reaches. What others read there comes back.
#[cfg(unix)]
fn around(map: &[u8], range: &Range<usize>) -> Range<usize> {
    const TABLE: usize = 2 << 20;
    let base = map.as_ptr() as usize % TABLE;
    let start = (base + range.start) / TABLE * TABLE;
    let end = (base + range.end).next_multiple_of(TABLE);
    start.saturating_sub(base).min(map.len())..(end - base).min(map.len())
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Maps the tensors of `dir`: of `model.safetensors`, or of the shards its index names.
    pub fn open(dir: &Path) -> Result<Self, ImportError> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.exists() {
            let mut tensors = BTreeMap::new();
            open_file(&single, &mut tensors)?;
            return Ok(Checkpoint { tensors });
        }
        if index.exists() {
            return open_sharded(dir, &index);
        }
        if has_gguf(dir) {
            return Err(ImportError::unsupported(
                dir,
                "there is GGUF, which is not read, and no safetensors",
                GGUF,
            ));
        }
        let hint = "fireq reads safetensors; with only pytorch_model.bin, load the model in transformers and \
                    save it with save_pretrained(dir, safe_serialization=True)";
        Err(ImportError::unsupported(dir, format!("there is neither {SINGLE} nor {INDEX}"), hint))
    }
}

fn has_gguf(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|files| files.flatten().any(|file| is_gguf(&file.path())))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_sharded(dir: &Path, path: &Path) -> Result<Checkpoint, ImportError> {
    let index: Index = read_json(path)?;
    let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    let mut tensors = BTreeMap::new();
    for shard in shards {
        check_shard_name(path, shard)?;
        open_file(&dir.join(shard), &mut tensors)?;
    }
    match index.weight_map.iter().find(|(name, _)| !tensors.contains_key(*name)) {
        None => Ok(Checkpoint { tensors }),
        Some((name, shard)) => {
            let reason = format!("tensor `{name}` is not in `{shard}`, where the index puts it");
            Err(ImportError::unsupported(path, reason, "download the shards and their index again"))
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
    let file = Arc::new(map(path).map_err(|source| ImportError::Read { path: path.into(), source })?);
    let bytes = file.bytes();
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

fn map(path: &Path) -> std::io::Result<Mapped> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    // SAFETY: the map is read-only; a file that another process changes meanwhile can change numbers, never types or
    // ranges, which are checked once and kept apart from the mapping.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Mapped { map })
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
