//! The simulated GPU: memory, modules and launches, with the driver's error codes.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fireq_sim::{Launch, Memory, Module, Options, run};

use crate::image;

/// What the GPU calls itself.
pub const NAME: &str = "simulated sm_90a";

/// An error of the driver API, by its number in `cuda.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// What was passed makes no sense.
    InvalidValue = 1,
    /// Nothing is a device, a context, or a handle like this.
    InvalidHandle = 400,
    /// A module is no image that can be run.
    InvalidImage = 200,
    /// A module has no PTX here.
    NoBinary = 209,
    /// A module has no such kernel.
    NotFound = 500,
    /// A kernel did something wrong.
    LaunchFailed = 719,
    /// What this driver does not do.
    NotSupported = 801,
}

/// Shared memory that a kernel has without asking for more, and the most that it can ask for.
const SHARED: usize = 48 << 10;
const MOST_SHARED: usize = 227 << 10;

/// All state of the driver.
#[derive(Default)]
pub struct Device {
    memory: Memory,
    modules: Vec<Option<Module>>,
    functions: Vec<Function>,
    events: Vec<Option<Instant>>,
    pinned: BTreeMap<usize, Box<[u8]>>,
    failed: bool,
}

struct Function {
    module: usize,
    kernel: String,
    /// Dynamic shared memory that it was allowed.
    shared: usize,
}

/// Sizes of a launch.
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
}

impl Device {
    /// The one device.
    pub fn the() -> MutexGuard<'static, Device> {
        static DEVICE: LazyLock<Mutex<Device>> = LazyLock::new(Mutex::default);
        DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error once a kernel has failed.
    pub fn check(&self) -> Result<(), Status> {
        if self.failed { Err(Status::LaunchFailed) } else { Ok(()) }
    }

    pub fn allocate(&mut self, bytes: usize) -> Result<u64, Status> {
        self.check()?;
        Ok(self.memory.alloc("memory", bytes))
    }

    pub fn free(&mut self, address: u64) -> Result<(), Status> {
        self.memory.free(address).map_err(|fault| said(&fault, Status::InvalidValue))
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Status> {
        self.check()?;
        self.memory.write(address, bytes).map_err(|fault| said(&fault, Status::InvalidValue))
    }

    pub fn read(&self, address: u64, bytes: usize) -> Result<&[u8], Status> {
        self.check()?;
        self.memory.read(address, bytes).map_err(|fault| said(&fault, Status::InvalidValue))
    }

    /// Memory of the host, which copies may read after they return.
    pub fn pin(&mut self, bytes: usize) -> Result<*mut u8, Status> {
        if bytes == 0 {
            return Err(Status::InvalidValue);
        }
        let mut memory = vec![0; bytes].into_boxed_slice();
        let address = memory.as_mut_ptr();
        self.pinned.insert(address as usize, memory);
        Ok(address)
    }

    pub fn unpin(&mut self, address: usize) -> Result<(), Status> {
        self.pinned.remove(&address).map(drop).ok_or(Status::InvalidValue)
    }

    /// A handle of the module that an image stands for.
    pub fn load(&mut self, image: &[u8]) -> Result<usize, Status> {
        self.check()?;
        let ptx = image::ptx(image).ok_or(Status::NoBinary)?;
        let module = Module::parse(&ptx).map_err(|e| said(&e, Status::InvalidImage))?;
        self.modules.push(Some(module));
        Ok(self.modules.len())
    }

    pub fn unload(&mut self, module: usize) -> Result<(), Status> {
        let place = module.checked_sub(1).and_then(|n| self.modules.get_mut(n));
        place.and_then(Option::take).map(drop).ok_or(Status::InvalidHandle)
    }

    fn module(&self, handle: usize) -> Result<&Module, Status> {
        let place = handle.checked_sub(1).and_then(|n| self.modules.get(n));
        place.and_then(Option::as_ref).ok_or(Status::InvalidHandle)
    }

    pub fn function(&mut self, module: usize, kernel: &str) -> Result<usize, Status> {
        self.module(module)?.kernels().find(|name| *name == kernel).ok_or(Status::NotFound)?;
        self.functions.push(Function { module, kernel: kernel.into(), shared: SHARED });
        Ok(self.functions.len())
    }

    fn find(&self, function: usize) -> Result<(&Function, &Module), Status> {
        let found =
            function.checked_sub(1).and_then(|n| self.functions.get(n)).ok_or(Status::InvalidHandle)?;
        Ok((found, self.module(found.module)?))
    }

    /// Bytes of parameters, shared and local memory that a kernel declares.
    pub fn sizes(&self, function: usize) -> Result<[usize; 3], Status> {
        let (found, module) = self.find(function)?;
        module.sizes(&found.kernel).ok_or(Status::NotFound)
    }

    /// Allows a kernel so much dynamic shared memory.
    pub fn allow_shared(&mut self, function: usize, bytes: usize) -> Result<(), Status> {
        let [_, declared, _] = self.sizes(function)?;
        if declared + bytes > MOST_SHARED {
            return Err(Status::InvalidValue);
        }
        self.functions[function - 1].shared = bytes;
        Ok(())
    }

    /// Runs a kernel to its end; what goes wrong in it shows from the next call on.
    pub fn launch(&mut self, function: usize, shape: &Shape, params: Vec<u8>) -> Result<(), Status> {
        self.check()?;
        let (found, _) = self.find(function)?;
        let empty = shape.grid.iter().chain(&shape.block).any(|n| *n == 0);
        if empty || shape.dynamic_shared > found.shared {
            return Err(Status::InvalidValue);
        }
        let Shape { grid, block, dynamic_shared } = *shape;
        let launch =
            Launch { kernel: found.kernel.clone(), grid, block, cluster: [1; 3], dynamic_shared, params };
        let module = self.modules[found.module - 1].as_ref().ok_or(Status::InvalidHandle)?;
        let ran = run(module, &launch, &mut self.memory, &Options::default());
        if let Err(fault) = ran {
            self.failed = true;
            said(&fault, Status::LaunchFailed);
        }
        Ok(())
    }

    pub fn event(&mut self) -> usize {
        self.events.push(None);
        self.events.len()
    }

    pub fn record(&mut self, event: usize) -> Result<(), Status> {
        *event.checked_sub(1).and_then(|n| self.events.get_mut(n)).ok_or(Status::InvalidHandle)? =
            Some(Instant::now());
        Ok(())
    }

    /// Milliseconds between two events.
    pub fn elapsed(&self, start: usize, end: usize) -> Result<f32, Status> {
        self.check()?;
        let at = |event: usize| event.checked_sub(1).and_then(|n| *self.events.get(n)?);
        let (Some(start), Some(end)) = (at(start), at(end)) else { return Err(Status::InvalidHandle) };
        Ok((end - start).as_secs_f32() * 1e3)
    }
}

/// Prints what is wrong, which no error code can say.
fn said(what: &impl std::fmt::Display, status: Status) -> Status {
    eprintln!("{NAME}: {what}");
    status
}
