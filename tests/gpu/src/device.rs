//! Cases on a GPU.

use fireq_runtime::cuda::{CudaError, DeviceBytes, Function, Gpu, encode};

use crate::case::{Case, Init, POISON};
use crate::compare::{Agreement, compare};

/// What became of a buffer: its name, and how near it is or what is wrong.
pub type Outcome = (String, Result<Agreement, String>);

/// Launches a case of `function` once, and compares every buffer for which something is expected; not where nothing is.
pub fn check(gpu: &Gpu, function: &Function, case: &Case) -> Result<Vec<Outcome>, CudaError> {
    if case.buffers.iter().all(|buffer| buffer.expected.is_none()) {
        return Ok(vec![]);
    }
    let [memory] = memory(gpu, case)?;
    launch(function, case, &memory)?;
    gpu.synchronize()?;
    let wanted = case.buffers.iter().zip(&memory).filter_map(|(b, m)| Some((b, m, b.expected.as_ref()?)));
    wanted.map(|(b, m, expected)| Ok((b.name.clone(), compare(&m.read()?, expected)))).collect()
}

/// The buffers of a case before its launch, so many times. Poison, outputs mostly, is as much as all else, and written there.
pub(crate) fn memory<const N: usize>(gpu: &Gpu, case: &Case) -> Result<[Vec<DeviceBytes>; N], CudaError> {
    let mut copies = [const { vec![] }; N];
    for buffer in &case.buffers {
        let bytes = if buffer.init == Init::Poison { vec![] } else { buffer.before() };
        for copy in &mut copies {
            let mut memory = gpu.allocate(buffer.len)?;
            if buffer.init == Init::Poison {
                memory.fill(POISON)?;
            } else {
                memory.put(0, &bytes)?;
            }
            copy.push(memory);
        }
    }
    Ok(copies)
}

/// Launches a case on these buffers.
pub(crate) fn launch(function: &Function, case: &Case, memory: &[DeviceBytes]) -> Result<(), CudaError> {
    let addresses: Vec<u64> = memory.iter().map(DeviceBytes::address).collect();
    let params = case.filled(&addresses, encode)?;
    // SAFETY: a case holds its kernel's structure, and buffers as large as the kernel uses: both come from the code that
    // emits kernels. Callers keep the memory until the GPU is synchronized.
    unsafe { function.launch(&case.shape, &params) }
}
