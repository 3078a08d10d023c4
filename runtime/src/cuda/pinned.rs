//! Memory of the host that a GPU copies from by itself, while the host goes on.

use cudarc::driver::result;

use super::{CudaError, DeviceBytes, Gpu, Mark};

/// Page-locked memory to copy from.
pub(super) struct Pinned {
    gpu: Gpu,
    address: *mut u8,
    len: usize,
    /// Behind the last copy from it.
    used: Option<Mark>,
}

impl Gpu {
    /// `len` bytes, at least one.
    pub(super) fn pinned(&self, len: usize) -> Result<Pinned, CudaError> {
        self.bind()?;
        // SAFETY: the context is current; the driver refuses what it cannot give.
        let address = unsafe { result::malloc_host(len, 0) };
        let address =
            address.map_err(CudaError::of(format!("{len} bytes of page-locked memory")))?.cast::<u8>();
        // SAFETY: the memory is ours and so long.
        unsafe { address.write_bytes(0, len) };
        Ok(Pinned { gpu: self.clone(), address, len, used: None })
    }
}

impl Pinned {
    /// The bytes, when no copy reads them any more.
    pub fn bytes(&mut self) -> Result<&mut [u8], CudaError> {
        if let Some(used) = self.used.take() {
            used.wait()?;
        }
        // SAFETY: the memory is ours, initialized and so long; the last copy from it is done, and none starts while it is borrowed.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.address, self.len) })
    }

    /// Starts to copy the first `len` bytes to a GPU's memory, behind what is there before `at`.
    pub fn send(&mut self, to: &mut DeviceBytes, at: usize, len: usize) -> Result<(), CudaError> {
        to.put(at, &self.bytes()?[..len])?;
        self.used = Some(self.gpu.mark()?);
        Ok(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What fails here failed before, where it was reported.
        let _ = self.gpu.synchronize();
        // SAFETY: the memory is ours, and nothing runs that reads it.
        let _ = unsafe { result::free_host(self.address.cast()) };
    }
}
