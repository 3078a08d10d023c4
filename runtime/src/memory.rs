//! Memory that kernels read and write: aligned, zeroed, and committed by the system only when touched.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::path::Path;
use std::ptr::NonNull;

use memmap2::Mmap;
use safetensors::SafeTensors;

use crate::RuntimeError;

/// Alignment of every buffer, in bytes.
const ALIGN: usize = 64;

/// A zeroed, aligned array of bytes of fixed size.
#[derive(Debug)]
pub struct Bytes {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned and has no interior references; access is governed by `&self` and `&mut self`.
unsafe impl Send for Bytes {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// `size` zero bytes for `what`.
    pub fn zeroed(size: usize, what: &str) -> Result<Self, RuntimeError> {
        let memory = || RuntimeError::Memory { what: what.into(), bytes: size };
        let layout = Layout::from_size_align(size.max(ALIGN), ALIGN).map_err(|_| memory())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(memory)?;
        Ok(Bytes { start, layout })
    }

    /// The address of the first byte. Kernels write through it.
    pub fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Never: there is at least one cache line.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are allocated, initialized and owned.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len()) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_slice`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len()) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.pointer(), self.layout) }
    }
}

/// Where the weights of a plan are.
#[derive(Debug)]
pub enum Weights {
    /// In a mapped safetensors file: dtype, shape and place of each tensor.
    File {
        /// The file.
        map: Mmap,
        /// For each tensor its dtype as safetensors names it, its shape, and its bytes in the file.
        tensors: BTreeMap<String, (String, Vec<usize>, std::ops::Range<usize>)>,
    },
    /// In memory, unchecked but for their size.
    Memory(BTreeMap<String, Vec<u8>>),
}

impl Weights {
    /// Maps a safetensors file and reads its header; a header that lies about the file is an error.
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        let io = |source| RuntimeError::Io { path: path.to_path_buf(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        // SAFETY: the file is part of an artifact, which nothing changes while it is open; its hash was checked.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let bad = |e: safetensors::SafeTensorError| RuntimeError::Weight {
            name: path.display().to_string(),
            reason: e.to_string(),
        };
        let tensors = SafeTensors::deserialize(&map).map_err(bad)?;
        let base = map.as_ptr() as usize;
        let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let start = view.data().as_ptr() as usize - base;
            let dtype = serde_json::to_value(view.dtype()).ok().and_then(|v| v.as_str().map(String::from));
            (
                name.to_string(),
                (dtype.unwrap_or_default(), view.shape().to_vec(), start..start + view.data().len()),
            )
        };
        let tensors = tensors.iter().map(entry).collect();
        Ok(Weights::File { map, tensors })
    }

    /// The bytes of a tensor of the given dtype and shape.
    pub(crate) fn get(
        &self,
        name: &str,
        dtype: &str,
        shape: &[usize],
        bytes: usize,
    ) -> Result<&[u8], RuntimeError> {
        let bad = |reason: String| RuntimeError::Weight { name: name.into(), reason };
        let missing = || bad("is missing".into());
        let found = match self {
            Weights::File { map, tensors } => {
                let (found_dtype, found_shape, range) = tensors.get(name).ok_or_else(missing)?;
                if found_dtype != dtype || found_shape != shape {
                    return Err(bad(format!(
                        "is {found_dtype} {found_shape:?}, the plan wants {dtype} {shape:?}"
                    )));
                }
                &map[range.clone()]
            }
            Weights::Memory(tensors) => tensors.get(name).ok_or_else(missing)?,
        };
        if found.len() == bytes {
            Ok(found)
        } else {
            Err(bad(format!("has {} bytes, the plan wants {bytes}", found.len())))
        }
    }
}
