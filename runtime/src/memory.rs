//! Memory that kernels read and write: aligned, zeroed, and committed by the system only when touched.

use memmap2::{MmapMut, MmapRaw};

use crate::RuntimeError;

/// Bytes that may be read behind a buffer, so that a vector load may reach past its end.
const SLACK: usize = 64;

/// A zeroed array of bytes of fixed size, aligned to a page. The system commits pages when they are first touched, so a
/// cache for a long context costs only what is used of it.
#[derive(Debug)]
pub struct Bytes {
    map: MmapRaw,
    len: usize,
}

impl Bytes {
    /// `size` zero bytes for `what`.
    pub fn zeroed(size: usize, what: &str) -> Result<Self, RuntimeError> {
        let mapped = size.checked_add(SLACK).and_then(|total| MmapMut::map_anon(total).ok());
        let map = mapped.ok_or_else(|| RuntimeError::Memory { what: what.into(), bytes: size })?;
        Ok(Bytes { map: MmapRaw::from(map), len: size })
    }

    /// The address of the first byte. Kernels write through it.
    pub fn pointer(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a buffer of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped, initialized and owned.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_slice`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_and_aligned() {
        let mut bytes = Bytes::zeroed(1 << 30, "a long cache").unwrap();
        assert_eq!(bytes.pointer().align_offset(64), 0);
        bytes.as_mut_slice()[1 << 29] = 1;
        assert_eq!((bytes.as_slice()[1 << 29], bytes.as_slice()[(1 << 30) - 1]), (1, 0));
    }

    #[test]
    fn sizes_that_no_machine_has_are_errors() {
        let error = Bytes::zeroed(usize::MAX, "the cache").unwrap_err();
        assert!(error.to_string().contains("for the cache"), "{error}");
        assert!(error.hint().is_some());
    }
}
