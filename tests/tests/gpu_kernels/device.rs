//! A simulated GPU: kernels are compiled by NVRTC, and their PTX is executed.

use std::convert::Infallible;

use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::nvrtc::{Compiled, NvrtcFailure, compile, version};
use fireq_gpu::Case;
use fireq_kernels::cuda::Unit;
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::{LaunchShape, Swizzle, TensorMapShape};
use fireq_sim::{Accumulator, InFlight, Launch, Memory, Module, Options, TensorMap, Timing, run};

use super::record::{Allocation, Near, folder, record};

/// The memory of a device, and what runs on it.
pub struct Device {
    memory: Memory,
    allocations: Vec<Allocation>,
    /// How near a GPU has to come to what is found here.
    pub near: Near,
}

/// A device, or none where there is no NVRTC, which is said.
pub fn device() -> Option<Device> {
    match version() {
        Ok(_) => Some(Device { memory: Memory::new(), allocations: vec![], near: Near::Exactly }),
        Err(NvrtcFailure::Missing) => {
            eprintln!("skipped: GPU kernels: no NVRTC (cargo xtask setup)");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// A unit's code for a GPU and for the simulator.
fn module(unit: &str, text: &str) -> (Compiled, Module) {
    let compiled = Cache::of_user().compile(unit, text).unwrap_or_else(|e| panic!("{e}"));
    let module = Module::parse(&compiled.ptx).unwrap_or_else(|e| panic!("{unit}: {e}"));
    (compiled, module)
}

/// The launch of a kernel on `rows` rows behind `past` positions.
fn launch_of<P: Params>(unit: &Unit, rows: usize, past: usize, params: &P) -> Launch {
    let LaunchShape { grid, block, cluster, dynamic_shared } = unit.launch(rows, past);
    let (kernel, dynamic_shared) = (unit.name.clone(), dynamic_shared as usize);
    Launch { kernel, grid, block, cluster, dynamic_shared, params: params.bytes() }
}

/// Memory that no launch writes: of a model, or of the host for a step. Of all else a kernel is run as if earlier launches that
/// have not ended write it.
const CONSTANT: [&str; 12] = [
    "bias",
    "channel scales",
    "draws",
    "inv_freq",
    "positions",
    "records",
    "runs",
    "sequences",
    "table",
    "tables",
    "tiles",
    "weight",
];

/// What memory holds that nothing should write.
pub const UNTOUCHED: u8 = 0xa5;

impl Device {
    /// Bytes in memory.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> u64 {
        let address = self.memory.alloc_with(name, bytes);
        self.allocations.push(Allocation { name: name.into(), address, bytes: bytes.to_vec() });
        address
    }

    /// Numbers in memory.
    pub fn put_f32(&mut self, name: &str, numbers: &[f32]) -> u64 {
        self.put(name, &numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Memory for a kernel to write to: bytes that it leaves alone are [`UNTOUCHED`].
    pub fn space(&mut self, name: &str, bytes: usize) -> u64 {
        self.put(name, &vec![UNTOUCHED; bytes])
    }

    /// Where memory of this name is.
    pub fn address(&self, name: &str) -> u64 {
        self.allocations.iter().find(|a| a.name == name).map(|a| a.address).expect("memory of this name")
    }

    /// Bytes of memory.
    pub fn bytes(&self, address: u64, bytes: usize) -> Vec<u8> {
        self.memory.read(address, bytes).unwrap_or_else(|e| panic!("{e}")).to_vec()
    }

    /// Numbers in memory.
    pub fn f32s(&self, address: u64, count: usize) -> Vec<f32> {
        let bytes = self.bytes(address, 4 * count);
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Runs a kernel on `rows` rows behind `past` positions.
    pub fn launch<P: Params>(&mut self, unit: &Unit, rows: usize, past: usize, params: &P) {
        self.launch_as(unit, &launch_of(unit, rows, past, params));
    }

    /// Runs a kernel behind launches that have not ended.
    pub fn launch_as(&mut self, unit: &Unit, launch: &Launch) {
        self.overlap();
        self.launch_text(&unit.name, &unit.source().unwrap(), launch);
        self.memory.set_in_flight(None);
    }

    /// Lets earlier launches be in flight that write all but constants.
    fn overlap(&mut self) {
        let changes = |a: &&Allocation| !CONSTANT.contains(&&*a.name);
        let range = |a: &Allocation| a.address..a.address + a.bytes.len() as u64;
        let written = self.allocations.iter().filter(changes).map(range).collect();
        self.memory.set_in_flight(Some(InFlight { written, read: vec![] }));
    }

    /// Runs a kernel of a text, both early and late, and records it where cases are wanted.
    pub fn launch_text(&mut self, unit: &str, text: &str, launch: &Launch) {
        let (compiled, module) = module(unit, text);
        let before = self.state();
        self.run(&module, launch, Options { timing: Timing::Early, ..Options::default() });
        let early = self.state();
        for a in &before {
            self.memory.write(a.address, &a.bytes).unwrap();
        }
        self.run(&module, launch, Options { timing: Timing::Late, ..Options::default() });
        let late = self.state();
        let differs = early.iter().zip(&late).find(|(early, late)| early.bytes != late.bytes);
        assert!(differs.is_none(), "{}: `{}` depends on timing", launch.kernel, differs.unwrap().0.name);
        if let Some(folder) = folder() {
            record(&folder, (unit, &compiled), launch, (&before, &late), self.near);
        }
    }

    /// Runs a kernel whose source may be wrong, with either timing and in several orders; `Err` with what the simulator says
    /// first.
    pub fn attempt<P: Params>(
        &mut self,
        unit: &Unit,
        source: &str,
        rows: usize,
        params: &P,
    ) -> Result<(), String> {
        let compiled = compile(&unit.name, source).unwrap_or_else(|e| panic!("{e}"));
        let module = Module::parse(&compiled.ptx).unwrap_or_else(|e| panic!("{}: {e}", unit.name));
        let launch = launch_of(unit, rows, 0, params);
        self.overlap();
        for timing in [Timing::Early, Timing::Late] {
            for seed in 0..3 {
                let options = Options { seed, timing, ..Options::default() };
                run(&module, &launch, &mut self.memory, &options).map_err(|fault| fault.to_string())?;
            }
        }
        Ok(())
    }

    /// Runs a case on memory of its own, and gives back what is in its buffers then.
    pub fn run_case(&mut self, case: &Case, unit: &Unit) -> Vec<Vec<u8>> {
        let (_, module) = module(&unit.name, &unit.source().unwrap());
        let addresses: Vec<u64> = case.buffers.iter().map(|b| self.put(&b.name, &b.before())).collect();
        let encode = |shape: &TensorMapShape, at: u64| Ok::<_, Infallible>(Device::map(at, shape).0);
        let params = case.filled(&addresses, encode).unwrap();
        let LaunchShape { grid, block, cluster, dynamic_shared } = case.shape;
        let (kernel, dynamic_shared) = (case.kernel.clone(), dynamic_shared as usize);
        let launch = Launch { kernel, grid, block, cluster, dynamic_shared, params };
        self.run(&module, &launch, Options { timing: Timing::Late, ..Options::default() });
        addresses.iter().zip(&case.buffers).map(|(at, buffer)| self.bytes(*at, buffer.len)).collect()
    }

    /// Runs a kernel on `rows` rows with tensor cores that add up like this: a model's guess, and no case for a GPU.
    pub fn launch_with<P: Params>(&mut self, accumulator: Accumulator, unit: &Unit, rows: usize, params: &P) {
        let (_, module) = module(&unit.name, &unit.source().unwrap());
        let options = Options { accumulator, ..Options::default() };
        self.overlap();
        self.run(&module, &launch_of(unit, rows, 0, params), options);
    }

    fn run(&mut self, module: &Module, launch: &Launch, options: Options) {
        run(module, launch, &mut self.memory, &options)
            .unwrap_or_else(|fault| panic!("{}, {:?}: {fault}", launch.kernel, options.timing));
    }

    /// A TMA descriptor of memory, in the simulator's encoding.
    pub fn map(address: u64, shape: &TensorMapShape) -> params::TensorMap {
        let swizzle = match shape.swizzle {
            Swizzle::None => fireq_sim::Swizzle::None,
            Swizzle::B32 => fireq_sim::Swizzle::B32,
            Swizzle::B64 => fireq_sim::Swizzle::B64,
            Swizzle::B128 => fireq_sim::Swizzle::B128,
        };
        let at = |list: &[u64], i: usize| list.get(i).copied().unwrap_or(0);
        let map = TensorMap {
            address,
            rank: shape.sizes.len(),
            element_bytes: shape.element as usize,
            dims: std::array::from_fn(|i| at(&shape.sizes, i)),
            strides: std::array::from_fn(|i| at(&shape.strides, i)),
            block: std::array::from_fn(|i| shape.tile.get(i).copied().unwrap_or(0)),
            swizzle,
        };
        params::TensorMap(map.encode().unwrap())
    }

    /// All memory as it is now.
    fn state(&self) -> Vec<Allocation> {
        let now = |a: &Allocation| Allocation { bytes: self.bytes(a.address, a.bytes.len()), ..a.clone() };
        self.allocations.iter().map(now).collect()
    }
}
