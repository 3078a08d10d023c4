//! Runs the launches of a plan on buffers of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use fireq_ir::artifact::{part_name, safetensors_type};
use fireq_ir::plan::{ARENA_ALIGN, Buffer, Kernel, Launch, Part, Place, Plan, Step, parts, verify_plan};
use libloading::Library;

use crate::{Bytes, RuntimeError, Weights};

/// `fn(args, dims, begin, end, scratch)`: see the code generator's module.
type KernelFn = unsafe extern "C" fn(*const *mut u8, *const u64, u64, u64, *mut u8);

/// The largest steps that an executor will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens in one step, and rows selected from them.
    pub tokens: usize,
    /// Tokens in the caches.
    pub context: usize,
    /// Threads that share the work.
    pub threads: usize,
}

/// Bytes of scratch per thread beyond one score per key: see the code generator's ABI.
const SCRATCH_SLACK: usize = 4096;
/// Below this many operations a launch runs on the calling thread: handing work out costs more.
const PARALLEL_WORK: usize = 400_000;
/// Pieces per thread, so that a slow thread does not hold up the others.
const PIECES_PER_THREAD: usize = 4;

struct Ready {
    launch: Launch,
    function: KernelFn,
    args: Vec<*mut u8>,
}

/// A plan with its code, weights and buffers.
pub struct Executor {
    plan: Plan,
    limits: Limits,
    launches: Vec<Ready>,
    inputs: BTreeMap<String, Bytes>,
    outputs: BTreeMap<String, (Bytes, usize)>,
    scratch: Vec<Bytes>,
    pool: Option<rayon::ThreadPool>,
    caches: BTreeMap<String, Vec<Bytes>>,
    // What the argument tables point into; dropped after them.
    _arena: Bytes,
    _weights: Weights,
    _library: Library,
}

// SAFETY: the argument tables point into memory that the executor owns and that does not move with it.
unsafe impl Send for Executor {}

impl Executor {
    /// Verifies the plan, maps its buffers and binds its kernels from the shared library.
    pub fn new(plan: Plan, weights: Weights, library: &Path, limits: Limits) -> Result<Self, RuntimeError> {
        verify_plan(&plan)?;
        let limits = Limits {
            tokens: limits.tokens.max(1),
            context: limits.context.max(1),
            threads: limits.threads.max(1),
        };
        // SAFETY: the library is what the code generator made for this plan: artifacts are hashed before they come here.
        let library = unsafe { Library::new(library) }?;
        let arena_size = plan.arena_bytes_per_token.checked_mul(limits.tokens);
        let arena_size =
            arena_size.ok_or_else(|| RuntimeError::Step("steps are too large for this plan".into()))?;
        let arena = Bytes::zeroed(arena_size, "scratch")?;
        let mut memory = Memory {
            limits,
            arena: &arena,
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            caches: BTreeMap::new(),
        };
        let addresses =
            plan.buffers.iter().map(|b| memory.place(b, &weights)).collect::<Result<Vec<_>, _>>()?;
        let Memory { inputs, outputs, caches, .. } = memory;
        let launches =
            plan.launches.iter().map(|l| bind(l, &library, &addresses)).collect::<Result<Vec<_>, _>>()?;
        let scratch_size =
            limits.context.checked_mul(4).and_then(|n| n.checked_add(SCRATCH_SLACK)).unwrap_or(usize::MAX);
        let scratch =
            (0..limits.threads).map(|_| Bytes::zeroed(scratch_size, "scores")).collect::<Result<_, _>>()?;
        let pool =
            (limits.threads > 1).then(|| rayon::ThreadPoolBuilder::new().num_threads(limits.threads).build());
        let pool = pool.transpose().map_err(|e| RuntimeError::Step(format!("cannot start threads: {e}")))?;
        Ok(Executor {
            plan,
            limits,
            launches,
            inputs,
            outputs,
            scratch,
            pool,
            _arena: arena,
            caches,
            _weights: weights,
            _library: library,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the executor was made for.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Sets the first bytes of an input.
    pub fn set_input(&mut self, name: &str, bytes: &[u8]) -> Result<(), RuntimeError> {
        let input = self.inputs.get_mut(name).filter(|input| bytes.len() <= input.len());
        let input =
            input.ok_or_else(|| RuntimeError::Step(format!("no input `{name}` of {} bytes", bytes.len())))?;
        input.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Sets an input of indices.
    pub fn set_indices(&mut self, name: &str, values: impl Iterator<Item = i32>) -> Result<(), RuntimeError> {
        let bytes: Vec<u8> = values.flat_map(i32::to_le_bytes).collect();
        self.set_input(name, &bytes)
    }

    /// Sets the first rows of a cache, part by part, as packed by [`fireq_ir::plan::pack_tensor`].
    pub fn fill_cache(&mut self, name: &str, parts: &[&[u8]]) -> Result<(), RuntimeError> {
        let caches = self.caches.get_mut(name).filter(|caches| caches.len() == parts.len());
        let caches = caches
            .ok_or_else(|| RuntimeError::Step(format!("no cache `{name}` of {} parts", parts.len())))?;
        for (cache, bytes) in caches.iter_mut().zip(parts) {
            let room = cache.as_mut_slice().get_mut(..bytes.len());
            room.ok_or_else(|| RuntimeError::Step(format!("cache `{name}` is too small")))?
                .copy_from_slice(bytes);
        }
        Ok(())
    }

    /// The first `rows` rows of an output of f32, as the last step left them.
    pub fn output(&self, name: &str, rows: usize) -> Option<&[f32]> {
        let (bytes, cols) = self.outputs.get(name)?;
        let count = rows.checked_mul(*cols).filter(|n| *n <= bytes.len() / 4)?;
        #[allow(clippy::cast_ptr_alignment)] // Bytes are aligned to cache lines.
        // SAFETY: the memory is aligned to 64 bytes, initialized, and holds at least `count` f32.
        Some(unsafe { std::slice::from_raw_parts(bytes.pointer().cast::<f32>(), count) })
    }

    /// Runs every launch for one step. Inputs must be set; caches keep what earlier steps wrote.
    pub fn run(&mut self, step: Step) -> Result<(), RuntimeError> {
        let Limits { tokens, context, .. } = self.limits;
        let keys = step.past.checked_add(step.tokens);
        if step.tokens > tokens || step.selected > tokens || keys.is_none_or(|n| n > context) {
            return Err(RuntimeError::Step(format!(
                "a step of {} tokens after {} does not fit {tokens} tokens and a context of {context}",
                step.tokens, step.past
            )));
        }
        self.check_indices(step)?;
        let dims = [step.tokens as u64, step.past as u64, step.selected as u64];
        for ready in &self.launches {
            let units = self.plan.units(&ready.launch, step);
            if step.rows(&self.plan.buffers[ready.launch.output].ty.shape.rows()) > 0 {
                self.launch(ready, &dims, units, work(&self.plan, &ready.launch, step));
            }
        }
        Ok(())
    }

    /// Units in equal pieces, one after another or on all threads; who does which piece does not change the result.
    fn launch(&self, ready: &Ready, dims: &[u64; 3], units: usize, work: usize) {
        let call = |begin: usize, end: usize, thread: usize| {
            let scratch = self.scratch[thread].pointer();
            // SAFETY: the plan is verified, its buffers are as large as the limits say, and the step is within them.
            // Pieces are disjoint ranges of units, which write disjoint memory; scratch belongs to one thread.
            unsafe {
                (ready.function)(ready.args.as_ptr(), dims.as_ptr(), begin as u64, end as u64, scratch);
            };
        };
        let Some(pool) = self.pool.as_ref().filter(|_| work >= PARALLEL_WORK && units > 1) else {
            return call(0, units, 0);
        };
        let piece = units.div_ceil(self.limits.threads * PIECES_PER_THREAD);
        let next = AtomicUsize::new(0);
        let shared = Shared(&call);
        pool.broadcast(|context| {
            loop {
                let begin = next.fetch_add(piece, Ordering::Relaxed);
                if begin >= units {
                    return;
                }
                shared.get()(begin, units.min(begin + piece), context.index());
            }
        });
    }

    /// Rows that a gather is told to read must exist.
    fn check_indices(&self, step: Step) -> Result<(), RuntimeError> {
        for Ready { launch, .. } in self.launches.iter().filter(|r| r.launch.kernel == Kernel::Gather) {
            let [table, index] = [launch.inputs[0], launch.inputs[1]].map(|b| &self.plan.buffers[b]);
            let Place::Input(name) = &index.place else {
                return Err(RuntimeError::Step("indices must be an input".into()));
            };
            let rows = step.rows(&table.ty.shape.rows());
            let count = step.rows(&index.ty.shape.cols());
            let bytes = self.inputs.get(&**name).map_or(&[][..], Bytes::as_slice);
            let indices =
                bytes.chunks_exact(4).take(count).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            if let Some(bad) = indices.into_iter().find(|i| !usize::try_from(*i).is_ok_and(|i| i < rows)) {
                return Err(RuntimeError::Step(format!("`{name}` has {bad}, but there are {rows} rows")));
            }
        }
        Ok(())
    }
}

/// Lets threads share a closure over raw pointers.
struct Shared<'a, F>(&'a F);

// SAFETY: the closure only reads the argument table; what kernels write through it is disjoint by construction.
unsafe impl<F> Sync for Shared<'_, F> {}

impl<F> Shared<'_, F> {
    fn get(&self) -> &F {
        self.0
    }
}

/// Roughly how many operations a launch takes.
fn work(plan: &Plan, launch: &Launch, step: Step) -> usize {
    let output = &plan.buffers[launch.output].ty;
    let elements = step.rows(&output.shape.rows()) * output.shape.cols().fixed().unwrap_or(0);
    match launch.kernel {
        Kernel::Linear => elements * plan.buffers[launch.inputs[0]].ty.shape.cols().fixed().unwrap_or(0),
        Kernel::Attention { .. } => elements * 2 * (step.past + step.tokens),
        Kernel::KvAppend => 0,
        _ => elements * 4,
    }
}

fn bind(launch: &Launch, library: &Library, addresses: &[Vec<*mut u8>]) -> Result<Ready, RuntimeError> {
    // SAFETY: the symbol has this type: the code generator gives it to every kernel.
    let function = *unsafe { library.get::<KernelFn>(launch.symbol.as_bytes()) }?;
    let args = launch.inputs.iter().chain([&launch.output]).flat_map(|b| addresses[*b].clone()).collect();
    Ok(Ready { launch: launch.clone(), function, args })
}

/// Finds or makes the memory of buffers.
struct Memory<'a> {
    limits: Limits,
    arena: &'a Bytes,
    inputs: BTreeMap<String, Bytes>,
    outputs: BTreeMap<String, (Bytes, usize)>,
    caches: BTreeMap<String, Vec<Bytes>>,
}

impl Memory<'_> {
    /// The addresses of a buffer's parts.
    fn place(&mut self, buffer: &Buffer, weights: &Weights) -> Result<Vec<*mut u8>, RuntimeError> {
        let tokens = self.limits.tokens;
        let Some(list) = parts(&buffer.ty, buffer.storage) else { return self.vector(buffer) };
        match &buffer.place {
            Place::Weight(name) => list.iter().map(|part| weight(weights, name, part, buffer)).collect(),
            Place::Arena { offset } => Ok(self.arena_addresses(&list, *offset, tokens)),
            Place::Cache(name) => {
                let caches = list
                    .iter()
                    .map(|p| allocate(p, self.limits.context, name))
                    .collect::<Result<Vec<_>, _>>()?;
                let addresses = caches.iter().map(Bytes::pointer).collect();
                self.caches.insert(name.to_string(), caches);
                Ok(addresses)
            }
            Place::Input(name) => {
                let [part] = &list[..] else {
                    return Err(RuntimeError::Step(format!("input `{name}` is quantized")));
                };
                let bytes = allocate(part, tokens, name)?;
                let address = bytes.pointer();
                self.inputs.insert(name.to_string(), bytes);
                Ok(vec![address])
            }
            Place::Output(name) => {
                let [part] = &list[..] else {
                    return Err(RuntimeError::Step(format!("output `{name}` is quantized")));
                };
                let bytes = allocate(part, tokens, name)?;
                let address = bytes.pointer();
                self.outputs.insert(name.to_string(), (bytes, part.cols));
                Ok(vec![address])
            }
        }
    }

    /// An input that is a vector of as many elements as there are tokens.
    fn vector(&mut self, buffer: &Buffer) -> Result<Vec<*mut u8>, RuntimeError> {
        let Place::Input(name) = &buffer.place else {
            return Err(RuntimeError::Step(format!("a vector of type {} is not an input", buffer.ty)));
        };
        let bytes = self.limits.tokens.checked_mul(buffer.ty.dtype.bits() / 8);
        let bytes = Bytes::zeroed(bytes.unwrap_or(usize::MAX), name)?;
        let address = bytes.pointer();
        self.inputs.insert(name.to_string(), bytes);
        Ok(vec![address])
    }

    fn arena_addresses(&self, list: &[Part], mut offset: usize, tokens: usize) -> Vec<*mut u8> {
        let address = |part: &Part| {
            // The verifier keeps every part inside `arena_bytes_per_token`, of which there are `tokens`.
            let address = self.arena.pointer().wrapping_add(offset * tokens);
            offset += part.row_bytes().next_multiple_of(ARENA_ALIGN);
            address
        };
        list.iter().map(address).collect()
    }
}

fn allocate(part: &Part, rows: usize, what: &str) -> Result<Bytes, RuntimeError> {
    Bytes::zeroed(part.row_bytes().saturating_mul(rows), what)
}

fn weight(weights: &Weights, name: &str, part: &Part, buffer: &Buffer) -> Result<*mut u8, RuntimeError> {
    let rows = buffer.ty.shape.rows().fixed().unwrap_or(0);
    let (dtype, shape) = safetensors_type(part, rows, buffer.ty.shape.0.len() == 1);
    let bytes = weights.get(&part_name(name, part), dtype, &shape, part.row_bytes() * rows)?;
    // Kernels only read weights: the verifier refuses plans that write one.
    Ok(bytes.as_ptr().cast_mut())
}
