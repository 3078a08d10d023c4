//! Launches: what to run, with which options.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fault::{Fault, FaultKind};
use crate::machine::{Machine, State};
use crate::memory::Memory;
use crate::op::Element;
use crate::program::{Kernel, Module, Place};
use crate::shared::RESERVED;
use crate::stats::Stats;

/// A kernel launch.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Name of the kernel in the module.
    pub kernel: String,
    /// CTAs in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a CTA in x, y, z.
    pub block: [u32; 3],
    /// CTAs of a cluster in x, y, z; a kernel's own cluster size wins over `[1, 1, 1]`.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: usize,
    /// Parameters as laid out in the kernel's parameter space; see [`Params`].
    pub params: Vec<u8>,
}

/// Builds the bytes of a launch's parameters.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<u8>);

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a parameter's bytes at its natural alignment: a power of two.
    #[must_use]
    pub fn bytes(mut self, align: usize, bytes: &[u8]) -> Self {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a pointer or another 64-bit value.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(8, &value.to_le_bytes())
    }

    /// Appends a 32-bit value.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(4, &value.to_le_bytes())
    }

    /// Appends an f32.
    #[must_use]
    pub fn f32(self, value: f32) -> Self {
        self.u32(value.to_bits())
    }

    /// The bytes.
    pub fn build(self) -> Vec<u8> {
        self.0
    }
}

/// When asynchronous operations take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timing {
    /// As soon as they are issued.
    Early,
    /// Only when a wait forces them, or when no warp can do anything else.
    #[default]
    Late,
}

/// How tensor cores add the products of one instruction of 8-bit elements to the old sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accumulator {
    /// Exactly, and rounded once to f32.
    #[default]
    Exact,
    /// As Hopper is reported to do it, which nothing here has verified: products and old sum are aligned at the largest
    /// exponent among them, cut off below, added, and the sum is cut off to as many bits (DeepSeek-V3, arXiv 2412.19437,
    /// section 3.3.2, observes about 14 bits; others find results of 13 fraction bits).
    Truncated {
        /// Bits kept below the leading one.
        fraction_bits: u32,
    },
}

impl Accumulator {
    /// What it is for elements of this kind.
    pub(crate) fn of(self, element: Element) -> Self {
        if element.bytes() == 1 { self } else { Self::Exact }
    }
}

/// Options of a run; results of a correct kernel do not depend on seed and timing.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides how warps interleave and in which order asynchronous operations complete.
    pub seed: u64,
    /// When asynchronous operations take effect.
    pub timing: Timing,
    /// Warp instructions after which the run is given up.
    pub budget: u64,
    /// Clusters that run at the same time, at least one; a CTA that waits for one of another cluster needs both to
    /// be among them.
    pub resident: usize,
    /// How tensor cores add 8-bit products; sums of wider elements are exact.
    pub accumulator: Accumulator,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, timing: Timing::Late, budget: 1 << 32, resident: 4, accumulator: Accumulator::Exact }
    }
}

/// Largest shared memory of a CTA, the system's part included.
const MOST_SHARED: usize = 228 << 10;

/// Runs a kernel to its end. Clusters start in the order of the grid, and a few of them run at the same time
/// ([`Options::resident`]). Variables of the module start anew in every launch.
pub fn run(module: &Module, launch: &Launch, memory: &mut Memory, options: &Options) -> Result<Stats, Fault> {
    let refuse = |reason: String| Fault {
        kind: FaultKind::Launch(reason),
        kernel: launch.kernel.clone(),
        position: None,
    };
    let kernel = module
        .kernel(&launch.kernel)
        .ok_or_else(|| refuse("the module has no kernel of this name".into()))?;
    let shape = Shape::new(kernel, launch).map_err(refuse)?;
    let before = memory.allocations();
    let variables = allocate_variables(module, memory);
    let world = World { module, kernel, launch, shape: &shape, variables: &variables, options };
    let result = run_clusters(&world, memory);
    memory.truncate(before);
    let stats = result?;
    if memory.overlaps() && stats.grid_waits == 0 {
        return Err(Fault { kind: FaultKind::NeverWaits, kernel: launch.kernel.clone(), position: None });
    }
    Ok(stats)
}

fn run_clusters(world: &World, memory: &mut Memory) -> Result<Stats, Fault> {
    let mut stats = Stats::default();
    let mut rng = ChaCha8Rng::seed_from_u64(world.options.seed);
    let mut waiting = 0..world.shape.clusters();
    let mut spare = vec![];
    // Clusters with a mark on those that are stuck until another one gets on.
    let mut live: Vec<(Machine, bool)> = vec![];
    loop {
        let room = world.options.resident.max(1) - live.len();
        for cluster in waiting.by_ref().take(room) {
            live.push((Machine::new(world, cluster, rng.random(), &mut spare), false));
        }
        let able: Vec<usize> = (0..live.len()).filter(|i| !live[*i].1).collect();
        if able.is_empty() {
            return live.first().map_or(Ok(stats), |(machine, _)| Err(machine.deadlock()));
        }
        let next = able[rng.random_range(0..able.len())];
        let state = live[next].0.advance(memory, &mut stats)?;
        if state == State::Stuck {
            live[next].1 = true;
            continue;
        }
        for (_, stuck) in &mut live {
            *stuck = false;
        }
        if state == State::Done {
            spare.extend(live.swap_remove(next).0.into_registers());
        }
    }
}

/// What all clusters of a launch share.
pub(crate) struct World<'a> {
    pub module: &'a Module,
    pub kernel: &'a Kernel,
    pub launch: &'a Launch,
    pub shape: &'a Shape,
    /// Addresses of the module's variables; 0 for shared ones.
    pub variables: &'a [u64],
    pub options: &'a Options,
}

/// Sizes derived from a launch that fits its kernel.
pub(crate) struct Shape {
    pub cluster: [u32; 3],
    /// Clusters in x, y, z.
    pub grid: [u32; 3],
    pub threads: u32,
    /// Offset of the dynamic part, and end of the shared memory.
    pub dynamic: usize,
    pub shared: usize,
}

impl Shape {
    fn new(kernel: &Kernel, launch: &Launch) -> Result<Self, String> {
        let product = |dims: [u32; 3]| dims.iter().map(|d| u64::from(*d)).product::<u64>();
        let cluster = kernel.required_cluster.unwrap_or(launch.cluster);
        if launch.cluster != cluster && launch.cluster != [1, 1, 1] {
            return Err(format!("clusters of {:?} where the kernel needs {cluster:?}", launch.cluster));
        }
        let threads = product(launch.block);
        let most = kernel.max_threads.unwrap_or(1024).min(1024);
        if threads == 0 || threads > most.into() || kernel.required_block.is_some_and(|b| b != launch.block) {
            return Err(format!("blocks of {:?}; the kernel allows {most} threads", launch.block));
        }
        let divides = launch.grid.iter().zip(cluster).all(|(g, c)| *g > 0 && c > 0 && g % c == 0);
        if !divides || product(cluster) > 16 {
            return Err(format!("a grid of {:?} in clusters of {cluster:?}", launch.grid));
        }
        if launch.params.len() != kernel.parameter_bytes {
            return Err(format!(
                "{} bytes of parameters instead of {}",
                launch.params.len(),
                kernel.parameter_bytes
            ));
        }
        let dynamic = (RESERVED + kernel.shared_bytes).next_multiple_of(kernel.dynamic_align);
        let shared = dynamic + launch.dynamic_shared;
        if shared > MOST_SHARED {
            return Err(format!("{shared} bytes of shared memory where {MOST_SHARED} exist"));
        }
        let grid = std::array::from_fn(|i| launch.grid[i] / cluster[i]);
        Ok(Self { cluster, grid, threads: threads as u32, dynamic, shared })
    }

    fn clusters(&self) -> u64 {
        self.grid.iter().map(|g| u64::from(*g)).product()
    }
}

fn allocate_variables(module: &Module, memory: &mut Memory) -> Vec<u64> {
    let mut addresses = vec![];
    for variable in &module.variables {
        addresses.push(match variable.place {
            Place::Shared | Place::Dynamic => 0,
            Place::Global | Place::Constant => {
                // Variables without an initialiser are zero.
                let mut bytes = variable.init.clone();
                bytes.resize(variable.bytes, 0);
                let address = memory.alloc_with(variable.name.as_str(), &bytes);
                if variable.place == Place::Constant {
                    memory.protect_last();
                }
                address
            }
        });
    }
    addresses
}
