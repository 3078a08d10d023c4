//! Runs the launches of a plan on buffers of its own.

use std::path::Path;
use std::time::Instant;

use fireq_ir::Dim;
use fireq_ir::interp::Tensor;
use fireq_ir::plan::{Kernel, Launch, MAX_HEADS, Place, Plan, Step, parts, verify_plan};
use fireq_kernels::linear_scratch;
use libloading::Library;

use crate::buffers::{Addresses, Buffers};
use crate::compare::{Compared, compare, tensor, type_in};
use crate::threads::Threads;
use crate::{Bytes, Ran, RuntimeError, Weights};

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

/// A plan with its code, weights and buffers.
pub struct Executor {
    plan: Plan,
    limits: Limits,
    launches: Vec<Ready>,
    /// One for each thread.
    scratch: Vec<Bytes>,
    threads: Threads,
    /// Launches that ran, where they are to be noted, since this time.
    trace: Option<(Instant, Vec<Ran>)>,
    /// Of the parts of each buffer.
    addresses: Vec<Addresses>,
    // What the argument tables and addresses point into; dropped after them.
    buffers: Buffers,
    _library: Library,
}

/// `fn(args, dims, begin, end, scratch)`: see the code generator's module.
type KernelFn = unsafe extern "C" fn(*const *mut u8, *const u64, u64, u64, *mut u8);

/// A launch with its function and arguments.
struct Ready {
    launch: Launch,
    /// Rows of the output.
    rows: Dim,
    function: KernelFn,
    args: Addresses,
}

// SAFETY: the arguments point into memory that the executor owns and that does not move with it.
unsafe impl Send for Ready {}
// SAFETY: the table itself is only read; what kernels write through it is disjoint from range to range.
unsafe impl Sync for Ready {}

impl Ready {
    fn call(&self, dims: &[u64; 3], begin: usize, end: usize, scratch: &Bytes) {
        // SAFETY: the plan is verified, its buffers are as large as the limits say, and the step is within them.
        // Callers run disjoint ranges of units, which write disjoint memory, each with scratch of its own.
        unsafe {
            (self.function)(self.args.as_ptr(), dims.as_ptr(), begin as u64, end as u64, scratch.pointer());
        }
    }
}

/// Bytes of scratch per thread beyond scores of [`MAX_HEADS`] heads for each key: see the code generator's ABI.
const SCRATCH_SLACK: usize = 4096;
/// From this many operations on threads share a launch: one does them in a few times of what it takes until another one has
/// noticed the launch, and until its end is noticed.
const SHARED_WORK: usize = 50_000;

impl Executor {
    /// Verifies the plan, maps its buffers and binds its kernels from the shared library.
    pub fn new(plan: Plan, weights: Weights, library: &Path, limits: Limits) -> Result<Self, RuntimeError> {
        verify_plan(&plan)?;
        let limits = Limits {
            tokens: limits.tokens.max(1),
            context: limits.context.max(1),
            threads: limits.threads.max(1),
        };
        let (buffers, addresses) = Buffers::new(&plan, weights, limits)?;
        // SAFETY: the library is what the code generator made for this plan: artifacts are hashed before they come here.
        let library = unsafe { Library::new(library) }?;
        let launches = plan.launches.iter().map(|launch| bind(&plan, launch, &library, &addresses));
        let launches = launches.collect::<Result<_, _>>()?;
        let bytes = scratch_bytes(&plan, limits);
        let scratch = (0..limits.threads).map(|_| Bytes::zeroed(bytes, "scratch"));
        let scratch = scratch.collect::<Result<_, _>>()?;
        let threads = Threads::new(limits.threads)?;
        Ok(Executor {
            plan,
            limits,
            launches,
            scratch,
            threads,
            trace: None,
            addresses,
            buffers,
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
        let input = self.buffers.inputs.get_mut(name).filter(|input| bytes.len() <= input.len());
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
        let caches = self.buffers.caches.get_mut(name).filter(|caches| caches.len() == parts.len());
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
        let (bytes, cols) = self.buffers.outputs.get(name)?;
        let count = rows.checked_mul(*cols).filter(|n| *n <= bytes.len() / 4)?;
        #[allow(clippy::cast_ptr_alignment)] // Bytes are aligned to cache lines.
        // SAFETY: the memory is aligned to 64 bytes, initialized, and holds at least `count` f32.
        Some(unsafe { std::slice::from_raw_parts(bytes.pointer().cast::<f32>(), count) })
    }

    /// Runs every launch for one step. Inputs must be set; caches keep what earlier steps wrote. The first step ends when
    /// weights are known to be those that were written, and with an error where they are not.
    pub fn run(&mut self, step: Step) -> Result<(), RuntimeError> {
        self.check_step(step)?;
        self.check_indices(step)?;
        let Executor { plan, launches, scratch, threads, trace, .. } = self;
        let shared = |ready: &Ready| work(plan, &ready.launch, step) >= SHARED_WORK;
        let dims = [step.tokens as u64, step.past as u64, step.selected as u64];
        threads.run(launches.iter().any(shared), |crew| {
            for ready in launches.iter().filter(|r| step.rows(&r.rows) > 0) {
                let (units, began) = (plan.units(&ready.launch, step), trace.is_some().then(Instant::now));
                crew.share(units, shared(ready), &|begin, end, thread| {
                    ready.call(&dims, begin, end, &scratch[thread]);
                });
                if let (Some(began), Some((origin, launches))) = (began, trace.as_mut()) {
                    launches.push(Ran {
                        symbol: ready.launch.symbol.to_string(),
                        kernel: ready.launch.kernel.mnemonic().into(),
                        start: began.duration_since(*origin).as_secs_f64(),
                        seconds: began.elapsed().as_secs_f64(),
                    });
                }
            }
        });
        self.buffers.weights.wait()
    }

    /// Notes from now on when launches run, and gives what was noted before.
    pub fn trace(&mut self) -> Vec<Ran> {
        self.trace.replace((Instant::now(), vec![])).map_or(vec![], |(_, launches)| launches)
    }

    /// As [`Executor::run`], one launch after the other, each compared with the interpreter on the operands that it had.
    pub fn compare(&mut self, step: Step) -> Result<Vec<Compared>, RuntimeError> {
        self.check_step(step)?;
        self.check_indices(step)?;
        let dims = [step.tokens as u64, step.past as u64, step.selected as u64];
        let mut compared = vec![];
        for ready in self.launches.iter().filter(|r| step.rows(&r.rows) > 0) {
            ready.call(&dims, 0, self.plan.units(&ready.launch, step), &self.scratch[0]);
            let value = |buffer| self.value(buffer, step);
            compared.push(compare(&self.plan, &ready.launch, step, &value)?);
        }
        self.buffers.weights.wait()?;
        Ok(compared)
    }

    /// What a buffer holds.
    fn value(&self, buffer: usize, step: Step) -> Result<Tensor, RuntimeError> {
        let ty = type_in(&self.plan, buffer, step);
        tensor(&ty, self.plan.buffers[buffer].storage, |part, bytes| {
            // SAFETY: the buffer has room for all rows of a step, which were checked; nothing writes it now.
            Ok(unsafe { std::slice::from_raw_parts(self.addresses[buffer][part], bytes) })
        })
    }

    fn check_step(&self, step: Step) -> Result<(), RuntimeError> {
        let Limits { tokens, context, .. } = self.limits;
        let keys = step.past.checked_add(step.tokens);
        if step.tokens <= tokens && step.selected <= tokens && keys.is_some_and(|n| n <= context) {
            return Ok(());
        }
        Err(RuntimeError::Step(format!(
            "a step of {} tokens after {} does not fit {tokens} tokens and a context of {context}",
            step.tokens, step.past
        )))
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
            let bytes = self.buffers.inputs.get(&**name).map_or(&[][..], Bytes::as_slice);
            let indices =
                bytes.chunks_exact(4).take(count).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            if let Some(bad) = indices.into_iter().find(|i| !usize::try_from(*i).is_ok_and(|i| i < rows)) {
                return Err(RuntimeError::Step(format!("`{name}` has {bad}, but there are {rows} rows")));
            }
        }
        Ok(())
    }
}

/// Bytes of scratch that a thread needs: see the code generator's ABI.
fn scratch_bytes(plan: &Plan, limits: Limits) -> usize {
    let linears = plan.launches.iter().filter(|launch| launch.kernel == Kernel::Linear);
    let weights = linears.filter_map(|launch| plan.buffers.get(*launch.inputs.get(1)?));
    let cols = weights.filter_map(|weight| Some(parts(&weight.ty, weight.storage)?.first()?.cols)).max();
    let packed = cols.map_or(0, |cols| linear_scratch(cols.saturating_mul(4)));
    limits.context.saturating_mul(4 * MAX_HEADS).saturating_add(SCRATCH_SLACK).max(packed)
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

fn bind(
    plan: &Plan,
    launch: &Launch,
    library: &Library,
    addresses: &[Addresses],
) -> Result<Ready, RuntimeError> {
    // SAFETY: the symbol has this type: the code generator gives it to every kernel.
    let function = unsafe { library.get::<KernelFn>(launch.symbol.as_bytes()) };
    let function = *function.map_err(|_| RuntimeError::Kernel(launch.symbol.to_string()))?;
    let args = launch.inputs.iter().chain([&launch.output]).flat_map(|b| addresses[*b].clone()).collect();
    Ok(Ready { launch: launch.clone(), rows: plan.buffers[launch.output].ty.shape.rows(), function, args })
}
