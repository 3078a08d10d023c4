//! Compiled kernels.

use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::result;
use cudarc::driver::sys::{
    CUfunction, CUfunction_attribute as Attribute, CUlaunchAttribute, CUlaunchAttributeID,
    CUlaunchAttributeValue, CUlaunchConfig, CUmodule, cuLaunchKernelEx,
};
use fireq_kernels::LaunchShape;
use serde::Serialize;

use super::{CudaError, Gpu};

/// Code on a GPU, unloaded with the last of its functions.
#[derive(Clone, Debug)]
pub struct Module(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    gpu: Gpu,
    module: CUmodule,
}

// SAFETY: modules belong to a context, which every use makes current; the driver's functions on them are thread-safe.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

/// A kernel.
#[derive(Clone, Debug)]
pub struct Function {
    module: Module,
    handle: CUfunction,
    name: String,
    /// The most dynamic shared memory that it was allowed.
    shared: Arc<AtomicU32>,
}

// SAFETY: as for modules.
unsafe impl Send for Function {}
// SAFETY: as for modules.
unsafe impl Sync for Function {}

/// What a kernel takes of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: i32,
    /// Bytes of shared memory of a CTA that the kernel declares.
    pub shared: i32,
    /// Bytes of local memory of a thread: spilled registers and arrays.
    pub local: i32,
}

impl Gpu {
    /// Loads a cubin for this GPU.
    pub fn load(&self, cubin: &[u8]) -> Result<Module, CudaError> {
        self.bind()?;
        // SAFETY: the driver reads an ELF file whose header states its own size; it is what the code generator made,
        // checked against its hash.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast::<c_void>()) };
        let module = module.map_err(CudaError::of("a cubin"))?;
        Ok(Module(Arc::new(Loaded { gpu: self.clone(), module })))
    }
}

impl Module {
    /// The kernel of this name.
    pub fn function(&self, name: &str) -> Result<Function, CudaError> {
        self.0.gpu.bind()?;
        let symbol = CString::new(name).map_err(|_| CudaError::Size(format!("`{name}` is no symbol")))?;
        // SAFETY: the module is loaded and stays so as long as the function.
        let handle = unsafe { result::module::get_function(self.0.module, symbol) };
        let handle = handle.map_err(CudaError::of(format!("kernel `{name}`")))?;
        Ok(Function { module: self.clone(), handle, name: name.into(), shared: Arc::default() })
    }
}

impl Function {
    /// What the kernel takes.
    pub fn resources(&self) -> Result<Resources, CudaError> {
        self.module.0.gpu.bind()?;
        // SAFETY: the function is loaded.
        let of = |attribute| unsafe { result::function::get_function_attribute(self.handle, attribute) };
        let resources = || {
            Ok(Resources {
                registers: of(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
                shared: of(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
                local: of(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            })
        };
        resources().map_err(CudaError::of(format!("attributes of `{}`", self.name)))
    }

    /// Allows launches so much dynamic shared memory; of several numbers the largest counts.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), CudaError> {
        if self.shared.fetch_max(bytes, Ordering::Relaxed) >= bytes {
            return Ok(());
        }
        self.module.0.gpu.bind()?;
        let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded; the driver refuses sizes that it does not have.
        unsafe { result::function::set_function_attribute(self.handle, most, bytes as i32) }
            .map_err(CudaError::of(format!("{bytes} bytes of shared memory for `{}`", self.name)))
    }

    /// Launches the kernel, which takes one parameter, a structure of these bytes. Errors of its execution show when the
    /// GPU is synchronized.
    ///
    /// # Safety
    ///
    /// `params` must be the structure that the kernel declares, and addresses in it must be those of memory as large as the
    /// kernel uses, alive until the GPU is synchronized.
    pub unsafe fn launch(&self, shape: &LaunchShape, params: &[u8]) -> Result<(), CudaError> {
        self.allow_shared(shape.dynamic_shared)?;
        // SAFETY: as the caller promises; the kernel begins when all before is done.
        unsafe { self.launch_as(shape, params, false) }
    }

    /// Launches the kernel with shared memory that it was allowed. One that overlaps may begin when CTAs of a kernel in front of it
    /// have ended or said that it may; what is not a kernel is always waited for (CUDA C++ Programming Guide, "Programmatic
    /// Dependent Launch").
    ///
    /// # Safety
    ///
    /// As for [`Function::launch`]; a kernel that overlaps waits for those in front of it before it touches what they do.
    pub unsafe fn launch_as(
        &self,
        shape: &LaunchShape,
        params: &[u8],
        overlaps: bool,
    ) -> Result<(), CudaError> {
        let gpu = &self.module.0.gpu;
        gpu.bind()?;
        let mut attribute = CUlaunchAttribute {
            id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: CUlaunchAttributeValue { pad: [0; 64] },
        };
        attribute.value.programmaticStreamSerializationAllowed = 1;
        let ([x, y, z], block) = (shape.grid, shape.block);
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: shape.dynamic_shared,
            hStream: gpu.stream.cu_stream(),
            attrs: &raw mut attribute,
            numAttrs: u32::from(overlaps),
        };
        let mut parameters = [params.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the driver copies configuration and parameter before it returns; the caller answers for what the latter points to.
        let launched = unsafe {
            cuLaunchKernelEx(&raw const config, self.handle, parameters.as_mut_ptr(), std::ptr::null_mut())
        };
        launched.result().map_err(|error| CudaError::of(format!("launch of `{}`", self.name))(error))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // What fails here failed before, where it was reported.
        let _ = self.gpu.synchronize();
        // SAFETY: no function is left, and nothing runs.
        let _ = unsafe { result::module::unload(self.module) };
    }
}
