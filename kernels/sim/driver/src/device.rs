//! The simulated GPU: memory, modules and launches, with the driver's error codes.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fireq_sim::{Launch, Memory, Module, Options, run};

use crate::host::Locked;
use crate::image;
use crate::stream::Stream;

/// What the GPU calls itself.
pub const NAME: &str = "simulated sm_90a";

/// An error of the driver API, by its number in `cuda.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// What was passed makes no sense.
    InvalidValue = 1,
    /// There is less memory than that.
    OutOfMemory = 2,
    /// Nothing is a device, a context, or a handle like this.
    InvalidHandle = 400,
    /// A module is no image that can be run.
    InvalidImage = 200,
    /// A module has no PTX here.
    NoBinary = 209,
    /// A capture begins in a capture, or ends outside of one.
    IllegalState = 401,
    /// A module has no such kernel.
    NotFound = 500,
    /// A kernel did something wrong.
    LaunchFailed = 719,
    /// What this driver does not do.
    NotSupported = 801,
    /// A call that is not allowed while work is captured.
    CaptureUnsupported = 900,
    /// What is captured was made useless by such a call.
    CaptureInvalidated = 901,
}

/// Shared memory that a kernel has without asking for more, and the most that it can ask for.
const SHARED: usize = 48 << 10;
const MOST_SHARED: usize = 227 << 10;

/// The variable with the bytes of memory that there are, for tests of what happens when they do not suffice.
const MEMORY: &str = "FIREQ_SIM_MEMORY";
/// Memory that there is otherwise.
const MEMORY_BYTES: usize = 64 << 30;
/// The variable that, when it is set, leaves kernels out: what remains is what the host does.
const SKIP: &str = "FIREQ_SIM_SKIP_KERNELS";

/// All state of the driver.
pub struct Device {
    memory: Memory,
    /// Bytes of each allocation.
    allocated: BTreeMap<u64, usize>,
    bytes: usize,
    skips: bool,
    modules: Vec<Option<Module>>,
    functions: Vec<Function>,
    events: Vec<Option<Instant>>,
    failed: bool,
    pub(crate) host: Locked,
    pub(crate) stream: Stream,
    calls: BTreeMap<&'static str, u64>,
}

struct Function {
    module: usize,
    kernel: String,
    /// Dynamic shared memory that it was allowed.
    shared: usize,
}

/// Sizes of a launch.
#[derive(Clone)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
}

impl Device {
    fn new() -> Self {
        let limit = std::env::var(MEMORY).ok().and_then(|bytes| bytes.parse().ok());
        Device {
            memory: Memory::default(),
            allocated: BTreeMap::new(),
            bytes: limit.unwrap_or(MEMORY_BYTES),
            skips: std::env::var_os(SKIP).is_some(),
            modules: vec![],
            functions: vec![],
            events: vec![],
            failed: false,
            host: Locked::default(),
            stream: Stream::default(),
            calls: BTreeMap::new(),
        }
    }

    /// The one device.
    pub fn the() -> MutexGuard<'static, Device> {
        static DEVICE: LazyLock<Mutex<Device>> = LazyLock::new(|| Mutex::new(Device::new()));
        DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one device, for a function of this name, whose calls are counted.
    pub fn called(name: &'static str) -> MutexGuard<'static, Device> {
        let mut device = Device::the();
        *device.calls.entry(name).or_default() += 1;
        device
    }

    /// How often a function was called, of those that are counted.
    pub fn calls(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// An error once a kernel has failed.
    pub fn check(&self) -> Result<(), Status> {
        if self.failed { Err(Status::LaunchFailed) } else { Ok(()) }
    }

    /// What goes wrong in work shows from the next call on.
    pub fn fail_where(&mut self, failed: bool) {
        self.failed |= failed;
    }

    /// Bytes that are free, and all.
    pub fn room(&self) -> (usize, usize) {
        (self.bytes - self.allocated.values().sum::<usize>(), self.bytes)
    }

    pub fn allocate(&mut self, bytes: usize) -> Result<u64, Status> {
        self.check()?;
        self.outside_capture()?;
        if bytes == 0 {
            return Err(Status::InvalidValue);
        }
        if bytes > self.room().0 {
            return Err(Status::OutOfMemory);
        }
        let address = self.memory.alloc("memory", bytes);
        self.allocated.insert(address, bytes);
        Ok(address)
    }

    pub fn free(&mut self, address: u64) -> Result<(), Status> {
        self.outside_capture()?;
        self.allocated.remove(&address);
        self.memory.free(address).map_err(|fault| said(&fault, Status::InvalidValue))
    }

    pub fn put(&mut self, address: u64, bytes: &[u8]) -> Result<(), Status> {
        self.check()?;
        self.memory.write(address, bytes).map_err(|fault| said(&fault, Status::InvalidValue))
    }

    pub fn get(&self, address: u64, bytes: usize) -> Result<&[u8], Status> {
        self.check()?;
        self.memory.read(address, bytes).map_err(|fault| said(&fault, Status::InvalidValue))
    }

    /// A handle of the module that an image stands for.
    pub fn load(&mut self, image: &[u8]) -> Result<usize, Status> {
        self.check()?;
        self.outside_capture()?;
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

    /// A launch has CTAs, and no more shared memory than its kernel was allowed.
    pub fn check_shape(&self, function: usize, shape: &Shape) -> Result<(), Status> {
        let (found, _) = self.find(function)?;
        let empty = shape.grid.iter().chain(&shape.block).any(|n| *n == 0);
        if empty || shape.dynamic_shared > found.shared { Err(Status::InvalidValue) } else { Ok(()) }
    }

    /// Runs a kernel to its end.
    pub fn execute(&mut self, function: usize, shape: &Shape, params: Vec<u8>) {
        if self.skips {
            return;
        }
        let Ok((found, _)) = self.find(function) else { return self.fail_where(true) };
        let Shape { grid, block, dynamic_shared } = *shape;
        let launch =
            Launch { kernel: found.kernel.clone(), grid, block, cluster: [1; 3], dynamic_shared, params };
        let Some(module) = &self.modules[found.module - 1] else { return };
        let ran = run(module, &launch, &mut self.memory, &Options::default());
        self.fail_where(ran.map_err(|fault| said(&fault, Status::LaunchFailed)).is_err());
    }

    pub fn event(&mut self) -> usize {
        self.events.push(None);
        self.events.len()
    }

    pub fn now(&mut self, event: usize) {
        if let Some(place) = event.checked_sub(1).and_then(|n| self.events.get_mut(n)) {
            *place = Some(Instant::now());
        }
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
