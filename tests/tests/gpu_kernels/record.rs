//! Launches that the simulator ran, as cases for a GPU: what was in memory before, and what is there now.
//!
//! With `FIREQ_GPU_BUNDLE` set to a folder, every launch of these tests becomes `cases/*.case` and `kernels/*.{cubin,ptx}` there.
//! What is expected is what the simulator found, which the tests compare with the interpreter.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use fireq_codegen::cuda::nvrtc::Compiled;
use fireq_gpu::{Buffer, Case, Dtype, Expected, Init, Param, Tolerance};
use fireq_kernels::{LaunchShape, Swizzle, TensorMapShape};
use fireq_sim::{Launch, TensorMap};

/// Memory of a device.
#[derive(Clone)]
pub struct Allocation {
    pub name: String,
    pub address: u64,
    pub bytes: Vec<u8>,
}

impl Allocation {
    fn holds(&self, address: u64) -> bool {
        (self.address..self.address + self.bytes.len() as u64).contains(&address)
    }
}

/// How near a GPU has to come to the simulator.
#[derive(Clone, Copy, PartialEq)]
pub enum Near {
    /// To the bit.
    Exactly,
    /// Where approximate instructions take part: scales to a relative 10⁻⁶, one code in a thousand by one step.
    Approximately,
    /// All that changes is f32, or bf16 where its name says so, to this relative error of the whole.
    Relatively(f64),
}

/// Where cases go, if they are wanted.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("FIREQ_GPU_BUNDLE").map(PathBuf::from)
}

/// Writes a launch with its memory `before` and `after` it.
pub fn record(
    folder: &Path,
    (unit, compiled): (&str, &Compiled),
    launch: &Launch,
    (before, after): (&[Allocation], &[Allocation]),
    near: Near,
) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{} {}", launch.kernel, NEXT.fetch_add(1, Ordering::Relaxed));
    let fills = fills(&launch.params, before);
    let used = |n: usize| fills.iter().any(|(_, fill)| buffer_of(fill) == n);
    let buffers = before.iter().zip(after).enumerate().map(|(n, (before, after))| Buffer {
        name: before.name.clone(),
        len: if used(n) { before.bytes.len() } else { 0 },
        init: Init::Data(if used(n) { before.bytes.clone() } else { vec![] }),
        expected: used(n).then(|| expected(before, after, near)),
    });
    let case = Case {
        buffers: buffers.collect(),
        name,
        unit: unit.into(),
        kernel: launch.kernel.clone(),
        shape: LaunchShape {
            grid: launch.grid,
            block: launch.block,
            cluster: launch.cluster,
            dynamic_shared: launch.dynamic_shared as u32,
        },
        params: launch.params.clone(),
        fills,
        cost: None,
    };
    write(folder, &case, compiled);
}

/// Writes a case and the code that it runs, for a GPU and for the simulator.
pub fn write(folder: &Path, case: &Case, compiled: &Compiled) {
    let (cases, kernels) = (folder.join("cases"), folder.join("kernels"));
    for dir in [&cases, &kernels] {
        fs::create_dir_all(dir).unwrap();
    }
    case.save(&cases.join(format!("{}.case", case.name.replace(' ', "-")))).unwrap();
    fs::write(kernels.join(format!("{}.cubin", case.unit)), &compiled.cubin).unwrap();
    fs::write(kernels.join(format!("{}.ptx", case.unit)), &compiled.ptx).unwrap();
}

fn buffer_of(fill: &Param) -> usize {
    let (Param::Address { buffer, .. } | Param::TensorMap { buffer, .. }) = fill;
    *buffer
}

/// What of the parameters depends on where memory is: addresses, and descriptors in the simulator's own encoding.
fn fills(params: &[u8], memory: &[Allocation]) -> Vec<(usize, Param)> {
    let mut fills = vec![];
    let mut at = 0;
    while at + 8 <= params.len() {
        let map =
            params.get(at..at + 128).and_then(|bytes| TensorMap::decode(bytes.try_into().unwrap()).ok());
        let address = u64::from_le_bytes(params[at..at + 8].try_into().unwrap());
        if let Some(map) = map.filter(|_| at % 64 == 0) {
            let buffer = memory.iter().position(|a| a.address == map.address).expect("a map of known memory");
            fills.push((at, Param::TensorMap { buffer, shape: shape_of(&map) }));
            at += 128;
            continue;
        }
        if let Some(buffer) = memory.iter().position(|a| a.holds(address)) {
            fills.push((at, Param::Address { buffer, byte: address - memory[buffer].address }));
        }
        at += 8;
    }
    fills
}

fn shape_of(map: &TensorMap) -> TensorMapShape {
    TensorMapShape {
        element: map.element_bytes as u32,
        sizes: map.dims[..map.rank].to_vec(),
        strides: map.strides[..map.rank - 1].to_vec(),
        tile: map.block[..map.rank].to_vec(),
        swizzle: match map.swizzle {
            fireq_sim::Swizzle::None => Swizzle::None,
            fireq_sim::Swizzle::B32 => Swizzle::B32,
            fireq_sim::Swizzle::B64 => Swizzle::B64,
            fireq_sim::Swizzle::B128 => Swizzle::B128,
        },
    }
}

fn expected(before: &Allocation, after: &Allocation, near: Near) -> Expected {
    let scales = after.name.contains("scales");
    let numbers = if after.name.contains("bf16") { Dtype::Bf16 } else { Dtype::F32 };
    let (dtype, tolerance) = match near {
        _ if before.bytes == after.bytes => (Dtype::Bytes, Tolerance::Exact),
        Near::Exactly => (Dtype::Bytes, Tolerance::Exact),
        Near::Approximately if scales => (Dtype::F32, Tolerance::Relative(1e-6)),
        Near::Relatively(error) => (numbers, Tolerance::Relative(error)),
        Near::Approximately => (Dtype::E4m3, Tolerance::Steps(1e-3)),
    };
    Expected { bytes: after.bytes.clone(), dtype, tolerance }
}
