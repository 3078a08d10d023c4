//! An NVIDIA GPU through its driver: memory, modules, launches and times. The driver is looked for when a GPU is opened, so
//! that nothing here needs one to build or to start.
//!
//! [`Executor`] runs an artifact's program, of steps that have [`Piece`]s of several sequences, in memory that [`Room`] says
//! the size of. It knows of no kernel what it does: the [program](fireq_kernels::cuda::program) has all launches with all
//! parameters, but for addresses and the numbers of a step.
//!
//! The host does little for a step in which every sequence has one token: it writes inputs and tables to page-locked memory, has
//! them copied at once, starts a graph of all launches, and waits for the tokens that were chosen.

mod batch;
mod buffers;
mod compare;
mod executor;
mod footprint;
mod graph;
mod inbox;
mod launch;
mod memory;
mod module;
mod pinned;
mod program;
mod random;
mod room;
mod shape;
mod step;
mod tensor_map;
mod timer;
mod upload;

use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};
use serde::Serialize;
use thiserror::Error;

pub use batch::{Batch, End, Event, Request};
pub use executor::Executor;
pub use footprint::{Footprint, Needs};
pub use graph::{Graph, Graphed};
pub use memory::DeviceBytes;
pub use module::{Function, Module, Resources};
pub use room::{PAGE, Room};
pub use step::Piece;
pub use tensor_map::encode;
pub use timer::{Mark, Timer};

/// Why a GPU does not do what it was asked to.
#[derive(Debug, Error)]
pub enum CudaError {
    /// There is no driver.
    #[error("there is no NVIDIA driver on this machine: libcuda cannot be loaded")]
    NoDriver,
    /// The driver refuses.
    #[error("{what}: {}", name(*.source))]
    Driver {
        /// What was tried.
        what: String,
        /// The driver's code.
        source: DriverError,
    },
    /// There is not as much memory.
    #[error("{} of GPU memory are not to be had: of {} are {} free", mebibytes(*.bytes), mebibytes(*.total), mebibytes(*.free))]
    Full {
        /// What was asked for.
        bytes: usize,
        /// What there was then.
        free: usize,
        /// What the GPU has.
        total: usize,
    },
    /// The caller asks for something that does not fit.
    #[error("{0}")]
    Size(String),
}

impl CudaError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        use sys::cudaError_enum as Code;
        match self {
            CudaError::NoDriver => Some("install NVIDIA's driver, or use --device cpu"),
            CudaError::Driver { source: DriverError(Code::CUDA_ERROR_NO_DEVICE), .. } => {
                Some("the driver finds no GPU: use --device cpu")
            }
            CudaError::Full { .. }
            | CudaError::Driver { source: DriverError(Code::CUDA_ERROR_OUT_OF_MEMORY), .. } => {
                Some("ask for a shorter context or fewer sequences")
            }
            CudaError::Driver {
                source:
                    DriverError(
                        Code::CUDA_ERROR_LAUNCH_FAILED
                        | Code::CUDA_ERROR_ILLEGAL_ADDRESS
                        | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
                        | Code::CUDA_ERROR_MISALIGNED_ADDRESS
                        | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
                        | Code::CUDA_ERROR_INVALID_PC
                        | Code::CUDA_ERROR_HARDWARE_STACK_ERROR,
                    ),
                ..
            } => Some("a kernel failed: `fireq logits --compare-ops` runs one after the other and names it"),
            CudaError::Driver {
                source:
                    DriverError(
                        Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
                        | Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                    ),
                ..
            } => Some("try --no-graphs"),
            CudaError::Driver { source: DriverError(Code::CUDA_ERROR_NO_BINARY_FOR_GPU), .. } => {
                Some("the kernels are for Hopper GPUs (sm_90a)")
            }
            _ => None,
        }
    }

    fn of(what: impl Into<String>) -> impl FnOnce(DriverError) -> CudaError {
        let what = what.into();
        move |source| CudaError::Driver { what, source }
    }
}

/// Of bytes.
fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The driver's words for an error.
fn name(error: DriverError) -> String {
    error.error_string().map_or_else(|_| format!("{error:?}"), |text| text.to_string_lossy().into_owned())
}

/// A GPU, with one stream in which everything happens in order.
#[derive(Clone, Debug)]
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
}

/// What a GPU is and how it runs now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    /// The vendor's name.
    pub name: String,
    /// Major and minor compute capability: 9.0 is Hopper.
    pub compute_capability: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: i32,
    /// Bytes of memory.
    pub memory: usize,
    /// Bytes of level-2 cache.
    pub l2: i32,
    /// The highest clock of the multiprocessors in MHz; not necessarily the one they run at.
    pub clock_mhz: i32,
    /// The newest CUDA that the driver supports, as 13000 for 13.0.
    pub driver: i32,
}

impl Gpu {
    /// The GPU that the driver numbers `ordinal`.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        // SAFETY: the library is only looked for.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let context = CudaContext::new(ordinal).map_err(CudaError::of(format!("GPU {ordinal}")))?;
        let stream = context.new_stream().map_err(CudaError::of("a stream"))?;
        Ok(Gpu { context, stream })
    }

    /// What the driver says about it.
    pub fn facts(&self) -> Result<Facts, CudaError> {
        let of = |attribute| self.context.attribute(attribute);
        let mut driver = 0;
        let mut facts = || {
            // SAFETY: the driver writes its version to a variable that outlives the call.
            unsafe { sys::cuDriverGetVersion(&raw mut driver) }.result()?;
            Ok(Facts {
                name: self.context.name()?,
                compute_capability: self.context.compute_capability()?,
                multiprocessors: of(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
                memory: self.context.total_mem()?,
                l2: of(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
                clock_mhz: of(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000,
                driver,
            })
        };
        facts().map_err(CudaError::of("the GPU's attributes"))
    }

    /// Bytes of memory that are free.
    pub fn free_memory(&self) -> Result<usize, CudaError> {
        self.context.mem_get_info().map(|(free, _)| free).map_err(CudaError::of("the GPU's free memory"))
    }

    /// Waits for everything that was asked for, and says what went wrong in it.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.stream.synchronize().map_err(CudaError::of("kernels launched before"))
    }

    /// Makes the context that of this thread.
    fn bind(&self) -> Result<(), CudaError> {
        self.context.bind_to_thread().map_err(CudaError::of("the context"))
    }
}
