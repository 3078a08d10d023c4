//! Memory of the host that a GPU copies from and to by itself.

use std::ffi::c_void;
use std::slice;

use cudarc::driver::{CudaEvent, result};

use super::{CudaError, DeviceBytes, Gpu};

/// Page-locked bytes, zeros at first.
#[derive(Debug)]
pub(super) struct Pinned {
    gpu: Gpu,
    memory: *mut u8,
    len: usize,
}

// SAFETY: the memory is the host's, and only this refers to it.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// At least one byte.
    pub fn new(gpu: &Gpu, len: usize) -> Result<Self, CudaError> {
        gpu.bind()?;
        let len = len.max(1);
        // SAFETY: the context is current; the driver refuses what it cannot give.
        let memory = unsafe { result::malloc_host(len, 0) };
        let memory =
            memory.map_err(CudaError::of(format!("{len} bytes of page-locked memory")))?.cast::<u8>();
        // SAFETY: the memory is ours, and has so many bytes.
        unsafe { memory.write_bytes(0, len) };
        Ok(Pinned { gpu: gpu.clone(), memory, len })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is ours, as long, and written.
        unsafe { slice::from_raw_parts(self.memory, self.len) }
    }

    /// The bytes, to be changed when no copy of them is under way.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.memory, self.len) }
    }

    /// `len` bytes of the GPU's memory from `at` on, when everything before is done.
    pub fn read(&mut self, from: &DeviceBytes, at: usize, len: usize) -> Result<Vec<u8>, CudaError> {
        let mut all = Vec::with_capacity(len);
        while all.len() < len {
            let next = (len - all.len()).min(self.len);
            from.copy_to(at + all.len(), &mut self.bytes_mut()[..next])?;
            self.gpu.synchronize()?;
            all.extend_from_slice(&self.bytes()[..next]);
        }
        Ok(all)
    }
}

/// Memory that is written and sent again and again.
pub(super) struct Stage {
    pinned: Pinned,
    /// Behind the last copy from it.
    sent: CudaEvent,
}

impl Stage {
    /// At least one byte.
    pub fn new(gpu: &Gpu, len: usize) -> Result<Self, CudaError> {
        Ok(Stage { pinned: Pinned::new(gpu, len)?, sent: gpu.event()? })
    }

    /// The bytes, when no copy reads them any more.
    pub fn bytes(&mut self) -> Result<&mut [u8], CudaError> {
        // An event that was never recorded is one that nothing waits for.
        self.sent.synchronize().map_err(CudaError::of("a copy to the GPU"))?;
        Ok(self.pinned.bytes_mut())
    }

    /// Copies the first `len` bytes to a GPU's memory from `at` on, in the stream's order.
    pub fn send(&self, to: &mut DeviceBytes, at: usize, len: usize) -> Result<(), CudaError> {
        to.put(at, &self.pinned.bytes()[..len])?;
        self.pinned.gpu.record(&self.sent)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What fails here failed before, where it was reported.
        let _ = self.gpu.synchronize();
        // SAFETY: the memory is ours, and no copy is under way.
        let _ = unsafe { result::free_host(self.memory.cast::<c_void>()) };
    }
}
