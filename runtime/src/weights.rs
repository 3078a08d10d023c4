//! The weights of a plan: a mapped safetensors file, or bytes in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use fireq_ir::ConstData;
use fireq_ir::artifact::{part_name, safetensors_type};
use fireq_ir::plan::{Buffer, Part, Place, Plan, parts};
use safetensors::SafeTensors;

use crate::files::inside;
use crate::hash::Check;
use crate::{Mapped, RuntimeError};

/// Where the weights of a plan are. A copy has the same memory.
#[derive(Clone, Debug)]
pub enum Weights {
    /// In a mapped file of an artifact.
    File(Arc<Checked>),
    /// In memory, or mapped from a checkpoint that others share; unchecked but for their size.
    Memory(BTreeMap<String, ConstData>),
    /// Made where they are wanted, on a GPU: random numbers that weights could have.
    Random {
        /// Those that are not made.
        known: Box<Weights>,
        /// The same seed gives the same weights.
        seed: u64,
    },
}

/// A mapped safetensors file, which may yet turn out to be damaged: see [`Weights::wait`].
#[derive(Debug)]
pub struct Checked {
    map: Arc<Mapped>,
    tensors: Tensors,
    check: Check,
}

/// For each tensor its dtype as safetensors names it, its shape, and its bytes in the file.
type Tensors = BTreeMap<String, (String, Vec<usize>, Range<usize>)>;

impl Weights {
    /// Maps a safetensors file of an artifact and reads its header; a header that lies about the file is an error. Whether the
    /// file has its `hash` is left to be checked.
    pub(crate) fn open(dir: &Path, file: &str, hash: &str) -> Result<Self, RuntimeError> {
        let path = inside(dir, file)?;
        let io = |source| RuntimeError::Io { path: path.clone(), source };
        let map = Arc::new(Mapped::open(&path).map_err(io)?);
        // A wish only: what is read in from now on may come in large pages, which take less time to find.
        #[cfg(target_os = "linux")]
        let _ = map.map().advise(memmap2::Advice::HugePage);
        let check = Check::new(Arc::clone(&map), file, hash);
        let bad = |e: safetensors::SafeTensorError| RuntimeError::Weight {
            name: path.display().to_string(),
            reason: e.to_string(),
        };
        match tensors(&map) {
            Ok(tensors) => Ok(Weights::File(Arc::new(Checked { map, tensors, check }))),
            // A header that cannot be read is most likely one that was damaged.
            Err(error) => check.wait().and(Err(bad(error))),
        }
    }

    /// Begins to check on other threads that the weights are those that were written.
    pub(crate) fn begin_check(&self) {
        match self {
            Weights::File(file) => file.check.begin(),
            Weights::Random { known, .. } => known.begin_check(),
            Weights::Memory(_) => {}
        }
    }

    /// Waits until all bytes are known to be those that were written; an error if they are not. Headers are checked before
    /// weights are used at all, so that numbers are wrong in a damaged file and nothing else: no result may leave before this.
    pub fn wait(&self) -> Result<(), RuntimeError> {
        match self {
            Weights::File(file) => file.check.wait(),
            Weights::Random { known, .. } => known.wait(),
            Weights::Memory(_) => Ok(()),
        }
    }

    /// Checks that every weight of the plan is there, with the plan's dtypes, shapes and sizes, and that nothing else is.
    /// Where `some` are enough, what is there is checked.
    pub(crate) fn check(&self, plan: &Plan, some: bool) -> Result<(), RuntimeError> {
        let mut wanted = BTreeSet::new();
        for buffer in &plan.buffers {
            let Place::Weight(name) = &buffer.place else { continue };
            if !some || self.has(name, buffer) {
                self.parts(name, buffer)?;
            }
            wanted
                .extend(parts(&buffer.ty, buffer.storage).iter().flatten().map(|part| part_name(name, part)));
        }
        match self.names().find(|name| !wanted.contains(*name)) {
            Some(extra) => Err(bad(extra, "is not a weight of the plan")),
            None => Ok(()),
        }
    }

    /// Whether any part of the weight `name` is there.
    pub(crate) fn has(&self, name: &str, buffer: &Buffer) -> bool {
        let list = parts(&buffer.ty, buffer.storage).unwrap_or_default();
        let mut wanted = list.iter().map(|part| part_name(name, part));
        wanted.any(|part| self.names().any(|there| *there == part))
    }

    /// The bytes of each part of the weight `name`, which the plan holds in `buffer`.
    pub fn parts(&self, name: &str, buffer: &Buffer) -> Result<Vec<&[u8]>, RuntimeError> {
        let no_size = || bad(name, format!("{} has no fixed size", buffer.ty));
        let rows = buffer.ty.shape.rows().fixed().ok_or_else(no_size)?;
        let list = parts(&buffer.ty, buffer.storage).ok_or_else(no_size)?;
        let vector = buffer.ty.shape.0.len() == 1;
        let bytes = |part: &Part| {
            let (dtype, shape) = safetensors_type(part, rows, vector);
            let size = part.stored(rows).ok_or_else(no_size)?.1;
            self.get(&part_name(name, part), dtype, &shape, size)
        };
        list.iter().map(bytes).collect()
    }

    fn names(&self) -> Box<dyn Iterator<Item = &String> + '_> {
        match self {
            Weights::File(file) => Box::new(file.tensors.keys()),
            Weights::Memory(tensors) => Box::new(tensors.keys()),
            Weights::Random { known, .. } => known.names(),
        }
    }

    /// The bytes of a tensor of the given dtype and shape.
    pub(crate) fn get(
        &self,
        name: &str,
        dtype: &str,
        shape: &[usize],
        bytes: usize,
    ) -> Result<&[u8], RuntimeError> {
        let missing = || bad(name, "is missing");
        let found = match self {
            Weights::File(file) => {
                let (found_dtype, found_shape, range) = file.tensors.get(name).ok_or_else(missing)?;
                if found_dtype != dtype || found_shape != shape {
                    return Err(bad(
                        name,
                        format!("is {found_dtype} {found_shape:?}, the plan wants {dtype} {shape:?}"),
                    ));
                }
                &file.map[range.clone()]
            }
            Weights::Memory(tensors) => tensors.get(name).and_then(ConstData::bytes).ok_or_else(missing)?,
            Weights::Random { known, .. } => return known.get(name, dtype, shape, bytes),
        };
        if found.len() == bytes {
            Ok(found)
        } else {
            Err(bad(name, format!("has {} bytes, the plan wants {bytes}", found.len())))
        }
    }
}

/// Dtype, shape and place of each tensor, by the header of a safetensors file.
fn tensors(map: &[u8]) -> Result<Tensors, safetensors::SafeTensorError> {
    let tensors = SafeTensors::deserialize(map)?;
    let base = map.as_ptr() as usize;
    let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let start = view.data().as_ptr() as usize - base;
        let dtype = serde_json::to_value(view.dtype()).ok().and_then(|v| v.as_str().map(String::from));
        let bytes = start..start + view.data().len();
        (name.to_string(), (dtype.unwrap_or_default(), view.shape().to_vec(), bytes))
    };
    Ok(tensors.iter().map(entry).collect())
}

fn bad(name: &str, reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Weight { name: name.into(), reason: reason.into() }
}
