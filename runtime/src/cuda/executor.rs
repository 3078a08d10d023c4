//! Runs a plan's program on a GPU, step by step.

use std::collections::BTreeMap;

use fireq_ir::plan::{Kernel, Place, Plan};
use fireq_kernels::cuda::DecodeAttention;
use fireq_kernels::cuda::params::Draw;
use fireq_kernels::cuda::program::{Argument, Count, Launch};

use super::buffers::Memory;
use super::graph::{Graphed, Graphs};
use super::inbox::Layout;
use super::launch::{Places, Ready};
use super::program::{load, read};
use super::shape::{Shape, Shapes};
use super::step::{Piece, Step};
use super::{Gpu, Mark, Room};
use crate::{Artifact, Ran, RuntimeError, Weights};

/// A program with its kernels, weights and memory on a GPU.
pub struct Executor {
    gpu: Gpu,
    plan: Plan,
    room: Room,
    launches: Vec<Ready>,
    sample: Option<Ready>,
    shapes: Shapes,
    // Before the memory that they use, as fields are dropped in order.
    graphs: Graphs,
    memory: Memory,
    /// Tokens that there are.
    vocab: Option<usize>,
    /// Names of its regions.
    regions: Vec<String>,
    /// Rows whose logits the last step left.
    selected: usize,
    trace: Option<Trace>,
}

/// Launches between two points each, since the first point.
struct Trace {
    origin: Mark,
    launches: Vec<(usize, Mark, Mark)>,
}

impl Executor {
    /// Loads the artifact's GPU code and weights, and waits until these are known to be those that were written.
    pub fn new(gpu: &Gpu, artifact: &Artifact, room: Room) -> Result<Self, RuntimeError> {
        Self::with_weights(gpu, artifact, &artifact.cuda_weights()?, room)
    }

    /// Loads the artifact's GPU code, and weights from elsewhere.
    pub fn with_weights(
        gpu: &Gpu,
        artifact: &Artifact,
        weights: &Weights,
        room: Room,
    ) -> Result<Self, RuntimeError> {
        let (plan, room) = (artifact.cuda_plan()?, room.rounded());
        let program = read(artifact, &plan)?;
        let memory = Memory::new(gpu, &plan, &program, weights, &room)?;
        let mut functions = BTreeMap::new();
        let mut ready = |launch: &Launch| {
            let name = &launch.function;
            if !functions.contains_key(name) {
                functions.insert(name.clone(), load(gpu, artifact, name)?);
            }
            Ready::new(launch.clone(), functions[name].clone(), &memory, &room)
        };
        let launches = program.launches.iter().map(&mut ready).collect::<Result<_, _>>()?;
        let sample = program.sample.as_ref().map(&mut ready).transpose()?;
        let shapes = Shapes::new(&program, room);
        gpu.synchronize()?;
        weights.wait()?;
        let regions = program.regions.into_iter().map(|region| region.name).collect();
        Ok(Executor {
            gpu: gpu.clone(),
            vocab: vocab(&plan),
            plan,
            room,
            launches,
            sample,
            shapes,
            graphs: Graphs::new(),
            memory,
            regions,
            selected: 0,
            trace: None,
        })
    }

    /// Keeps graphs of no more shapes of steps than this, those that came last; with 0 every step starts its launches one by one.
    pub fn keep_graphs(&mut self, most: usize) {
        self.graphs.keep(most);
    }

    /// How many steps graphs started so far.
    pub fn graphed(&self) -> Graphed {
        self.graphs.counts()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What there is room for.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Starts every launch of a step of these pieces, whose keys and values go to their pages.
    pub fn run(&mut self, pieces: &[Piece<'_>]) -> Result<(), RuntimeError> {
        let step = self.prepare(pieces, &[])?;
        self.start(&step)
    }

    /// Whether it chooses tokens.
    pub fn chooses(&self) -> bool {
        self.sample.is_some()
    }

    /// Runs a step, and gives the tokens that draws take from the logits of its selected rows, one for each, when it is done.
    pub fn choose(&mut self, pieces: &[Piece<'_>], draws: &[Draw]) -> Result<Vec<u32>, RuntimeError> {
        let sample = self.sample.as_ref().ok_or_else(|| RuntimeError::Kernel("sample".into()))?;
        let Some(Argument::Region { region, .. }) = sample.launch.arguments.last() else {
            return Err(RuntimeError::Program("`sample` leaves its tokens to no region".into()));
        };
        let region = *region;
        let step = self.prepare(pieces, draws)?;
        self.start(&step)?;
        let Memory { outbox, regions, .. } = &mut self.memory;
        let bytes = outbox.read(&regions[region], 0, 4 * draws.len())?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    /// The step of these pieces, with inputs and tables written for it.
    pub(super) fn prepare<'a>(
        &mut self,
        pieces: &'a [Piece<'a>],
        draws: &'a [Draw],
    ) -> Result<Step<'a>, RuntimeError> {
        let step = Step::new(pieces, draws, &self.room, &mut self.shapes)?;
        let mut launches = self.launches.iter();
        let queries =
            launches.any(|ready| ready.launch.rows == Count::Queries && ready.runs(&step.shape, &self.room));
        if queries && step.positions() > self.room.positions {
            return Err(RuntimeError::Step(format!(
                "sequences of {} positions: a step has room for {}",
                step.positions(),
                self.room.positions
            )));
        }
        pieces.iter().try_for_each(|piece| self.check_tokens(piece.tokens))?;
        self.memory.inbox.send(step.layout.clone(), |item, to| step.write(item, to))?;
        self.selected = step.shape.selected;
        Ok(step)
    }

    /// Starts everything of a step: of one that may come again, by a graph.
    fn start(&mut self, step: &Step<'_>) -> Result<(), RuntimeError> {
        if self.trace.is_none() && self.repeats(&step.shape) {
            let Executor { gpu, launches, sample, graphs, memory, room, .. } = self;
            let capture = || gpu.capture(|| launch_all(launches, sample.as_mut(), &step.shape, memory, room));
            if let Some(graph) = graphs.of(&step.shape, capture)? {
                // SAFETY: what was captured are launches on this memory, which outlives graphs.
                return Ok(unsafe { graph.launch() }?);
            }
        }
        (0..self.launches()).try_for_each(|n| self.run_launch(n, step))?;
        let at = Places { memory: &self.memory, layout: &step.layout, room: &self.room };
        match self.sample.as_mut().filter(|_| step.shape.draws > 0) {
            Some(sample) => sample.run(&step.shape, &at),
            None => Ok(()),
        }
    }

    /// Whether steps of a shape come again and again, and launch the same.
    fn repeats(&self, shape: &Shape) -> bool {
        let of_past = |ready: &Ready| ready.launch.rows == Count::Past && ready.runs(shape, &self.room);
        shape.longest == 1 && !self.launches.iter().any(of_past)
    }

    /// Launches of a step.
    pub(super) fn launches(&self) -> usize {
        self.launches.len()
    }

    /// Starts one of them, if the step has it.
    pub(super) fn run_launch(&mut self, n: usize, step: &Step<'_>) -> Result<(), RuntimeError> {
        let at = Places { memory: &self.memory, layout: &step.layout, room: &self.room };
        let ready = &mut self.launches[n];
        let run = |ready: &mut Ready| match ready.launch.rows {
            Count::Past => ready.run_each(&step.sequences, &step.shape, &at),
            _ => ready.run(&step.shape, &at),
        };
        let Some(trace) = self.trace.as_mut().filter(|_| ready.runs(&step.shape, &self.room)) else {
            return run(ready);
        };
        let before = self.gpu.mark()?;
        run(ready)?;
        trace.launches.push((n, before, self.gpu.mark()?));
        Ok(())
    }

    /// Notes from now on when launches run, and gives what was noted before, when that is done.
    pub fn trace(&mut self) -> Result<Vec<Ran>, RuntimeError> {
        let new = Trace { origin: self.gpu.mark()?, launches: vec![] };
        let Some(Trace { origin, launches }) = self.trace.replace(new) else { return Ok(vec![]) };
        let ran = |(n, start, end): (usize, Mark, Mark)| {
            let launch = &self.launches[n].launch;
            Ok(Ran {
                symbol: launch.symbol.clone(),
                kernel: launch.function.clone(),
                start: start.since(&origin)?,
                seconds: end.since(&start)?,
            })
        };
        launches.into_iter().map(ran).collect()
    }

    /// One of them.
    pub(super) fn launch(&self, n: usize) -> &Launch {
        &self.launches[n].launch
    }

    /// The attention that reads the cache.
    pub(super) fn attention(&self) -> Option<DecodeAttention> {
        self.shapes.attention
    }

    /// The region of this name.
    pub(super) fn region(&self, name: &str) -> Option<usize> {
        self.regions.iter().position(|region| region == name)
    }

    /// What a region holds, when everything before is done.
    pub(super) fn read_region(&self, region: usize) -> Result<Vec<u8>, RuntimeError> {
        Ok(self.memory.regions[region].read()?)
    }

    /// The first bytes of a part of a buffer, when everything before is done.
    pub(super) fn read(&self, buffer: usize, part: usize, len: usize) -> Result<Vec<u8>, RuntimeError> {
        Ok(self.memory.read(buffer, part, len)?)
    }

    /// The logits of the last step's selected rows, when it is done.
    pub fn logits(&mut self) -> Result<Vec<f32>, RuntimeError> {
        let Memory { outbox, outputs, .. } = &mut self.memory;
        let Some((memory, cols)) = outputs.get("logits") else { return Ok(vec![]) };
        let bytes = outbox.read(memory, 0, 4 * cols * self.selected)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// Waits until everything is done, and says what went wrong in it.
    pub fn synchronize(&self) -> Result<(), RuntimeError> {
        Ok(self.gpu.synchronize()?)
    }

    /// Rows that are gathered by their tokens must exist.
    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<(), RuntimeError> {
        let Some(rows) = self.vocab else { return Ok(()) };
        match tokens.iter().find(|token| **token as usize >= rows) {
            Some(bad) => Err(RuntimeError::Step(format!("token {bad} is outside the vocabulary of {rows}"))),
            None => Ok(()),
        }
    }
}

/// Starts all launches of steps of a shape, which is all that they may depend on.
fn launch_all(
    launches: &mut [Ready],
    sample: Option<&mut Ready>,
    shape: &Shape,
    memory: &Memory,
    room: &Room,
) -> Result<(), RuntimeError> {
    let layout = Layout::of(shape, room);
    let at = Places { memory, layout: &layout, room };
    let sample = sample.filter(|_| shape.draws > 0);
    launches.iter_mut().chain(sample).try_for_each(|ready| ready.run(shape, &at))
}

/// Rows of the smallest table that is gathered by tokens.
fn vocab(plan: &Plan) -> Option<usize> {
    let by_tokens = |b: usize| matches!(&plan.buffers[b].place, Place::Input(name) if &**name == "tokens");
    let gathers = plan.launches.iter().filter(|l| l.kernel == Kernel::Gather && by_tokens(l.inputs[1]));
    gathers.filter_map(|l| plan.buffers[l.inputs[0]].ty.shape.rows().fixed()).min()
}
