//! A simulated GPU: kernels are compiled by NVRTC, and their PTX is executed.

use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::nvrtc::{NvrtcFailure, version};
use fireq_kernels::cuda::Unit;
use fireq_kernels::cuda::params::Params;
use fireq_sim::{Launch, Memory, Module, Options, Timing, run};

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
        let launch = Launch {
            kernel: unit.name.clone(),
            grid: unit.grid.ctas(rows, past),
            block: [unit.threads as u32, 1, 1],
            cluster: [1, 1, 1],
            dynamic_shared: 0,
            params: params.bytes(),
        };
        self.launch_text(&unit.name, &unit.source().unwrap(), &launch);
    }

    /// Runs a kernel of a text, both early and late, and records it where cases are wanted.
    pub fn launch_text(&mut self, unit: &str, text: &str, launch: &Launch) {
        let compiled = Cache::of_user().compile(unit, text).unwrap_or_else(|e| panic!("{e}"));
        let module = Module::parse(&compiled.ptx).unwrap_or_else(|e| panic!("{unit}: {e}"));
        let before = self.state();
        self.run(&module, launch, Timing::Early);
        let early = self.state();
        for a in &before {
            self.memory.write(a.address, &a.bytes).unwrap();
        }
        self.run(&module, launch, Timing::Late);
        let late = self.state();
        let differs = early.iter().zip(&late).find(|(early, late)| early.bytes != late.bytes);
        assert!(differs.is_none(), "{}: `{}` depends on timing", launch.kernel, differs.unwrap().0.name);
        if let Some(folder) = folder() {
            record(&folder, (unit, &compiled.cubin), launch, (&before, &late), self.near);
        }
    }

    fn run(&mut self, module: &Module, launch: &Launch, timing: Timing) {
        let options = Options { timing, ..Options::default() };
        run(module, launch, &mut self.memory, &options)
            .unwrap_or_else(|fault| panic!("{}, {timing:?}: {fault}", launch.kernel));
    }

    /// All memory as it is now.
    fn state(&self) -> Vec<Allocation> {
        let now = |a: &Allocation| Allocation { bytes: self.bytes(a.address, a.bytes.len()), ..a.clone() };
        self.allocations.iter().map(now).collect()
    }
}
