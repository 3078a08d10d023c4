//! Memory of a GPU.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdeviceptr, CUresult};

use super::{CudaError, Gpu};

/// Bytes in a GPU's memory, aligned to 256; freed with it.
#[derive(Debug)]
pub struct DeviceBytes {
    gpu: Gpu,
    address: CUdeviceptr,
    len: usize,
}

impl Gpu {
    /// `len` bytes that hold anything.
    pub fn allocate(&self, len: usize) -> Result<DeviceBytes, CudaError> {
        self.bind()?;
        // SAFETY: the context is current; the driver refuses what it cannot give. It has no allocations of no bytes.
        let address = unsafe { result::malloc_sync(len.max(1)) };
        let address = address.map_err(|error| Self::refused(len, error))?;
        Ok(DeviceBytes { gpu: self.clone(), address, len })
    }

    fn refused(bytes: usize, error: DriverError) -> CudaError {
        let room = result::mem_get_info();
        match (error, room) {
            (DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY), Ok((free, total))) => {
                CudaError::Full { bytes, free, total }
            }
            _ => CudaError::of(format!("{bytes} bytes of GPU memory"))(error),
        }
    }

    /// A copy of `bytes`.
    pub fn upload(&self, bytes: &[u8]) -> Result<DeviceBytes, CudaError> {
        let mut memory = self.allocate(bytes.len())?;
        memory.put(0, bytes)?;
        Ok(memory)
    }
}

impl DeviceBytes {
    /// The address of the first byte, as kernels see it.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for memory of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets the bytes from `at` on, in the stream's order; `bytes` may be used again at once, but for those of page-locked memory,
    /// which may be copied any time until the stream is.
    pub fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), CudaError> {
        self.range(at, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.gpu.bind()?;
        let stream = self.gpu.stream.cu_stream();
        // SAFETY: the bytes lie in memory that is ours, and the stream orders the write. The driver has copied pageable memory
        // when it returns; page-locked memory lives until the stream was synchronized.
        unsafe { result::memcpy_htod_async(self.address + at as u64, bytes, stream) }
            .map_err(CudaError::of("a copy to the GPU"))
    }

    /// Sets the bytes from `at` on to the first `len` of other memory, in the stream's order.
    pub fn copy(&mut self, at: usize, from: &DeviceBytes, len: usize) -> Result<(), CudaError> {
        self.range(at, len)?;
        from.range(0, len)?;
        if len == 0 {
            return Ok(());
        }
        self.gpu.bind()?;
        let (to, stream) = (self.address + at as u64, self.gpu.stream.cu_stream());
        // SAFETY: both ranges lie in memory that is ours, different memory since one is borrowed mutably, and the stream orders
        // the copy before the memory is freed.
        unsafe { result::memcpy_dtod_async(to, from.address, len, stream) }
            .map_err(CudaError::of("a copy on the GPU"))
    }

    /// `len` bytes from `at` on, when everything before is done.
    pub fn get(&self, at: usize, len: usize) -> Result<Vec<u8>, CudaError> {
        self.range(at, len)?;
        let mut bytes = vec![0u8; len];
        self.gpu.synchronize()?;
        self.gpu.bind()?;
        if len > 0 {
            // SAFETY: the bytes lie in memory that is ours, and nothing runs that uses it.
            unsafe { result::memcpy_dtoh_sync(&mut bytes, self.address + at as u64) }
                .map_err(CudaError::of("a copy from the GPU"))?;
        }
        Ok(bytes)
    }

    /// Copies bytes from `at` on to page-locked memory, in the stream's order.
    pub(super) fn copy_to(&self, at: usize, to: &mut [u8]) -> Result<(), CudaError> {
        self.range(at, to.len())?;
        self.gpu.bind()?;
        // SAFETY: the bytes lie in memory that is ours, and so does what they are copied to, until the stream was synchronized.
        unsafe { result::memcpy_dtoh_async(to, self.address + at as u64, self.gpu.stream.cu_stream()) }
            .map_err(CudaError::of("a copy from the GPU"))
    }

    fn range(&self, at: usize, len: usize) -> Result<(), CudaError> {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len);
        if fits { Ok(()) } else { Err(CudaError::Size(format!("{len} bytes from {at} on of {}", self.len))) }
    }

    /// Sets every byte, in the stream's order.
    pub fn fill(&mut self, byte: u8) -> Result<(), CudaError> {
        self.gpu.bind()?;
        // SAFETY: the memory is ours and `len` bytes long, and the stream orders the write.
        unsafe { result::memset_d8_async(self.address, byte, self.len, self.gpu.stream.cu_stream()) }
            .map_err(CudaError::of("filling GPU memory"))
    }

    /// All bytes, when everything before is done.
    pub fn read(&self) -> Result<Vec<u8>, CudaError> {
        self.get(0, self.len)
    }
}

impl Drop for DeviceBytes {
    fn drop(&mut self) {
        // What fails here failed before, where it was reported.
        let _ = self.gpu.synchronize();
        // SAFETY: the memory is ours, and nothing runs that uses it.
        let _ = unsafe { result::free_sync(self.address) };
    }
}
