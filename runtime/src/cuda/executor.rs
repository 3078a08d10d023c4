//! Runs a plan's program on a GPU, step by step.

use std::collections::BTreeMap;
use std::fs;

use fireq_ir::Dim;
use fireq_ir::artifact::{CUDA_KERNELS, CUDA_PROGRAM};
use fireq_ir::plan::{Kernel, Place, Plan};
use fireq_kernels::cuda::params::{Draw, Params};
use fireq_kernels::cuda::program::{Argument, Count, Launch, Program, Table};
use fireq_kernels::cuda::{DecodeAttention, Grid};

use super::buffers::{Memory, row_bytes};
use super::launch::Ready;
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
    attention: Option<DecodeAttention>,
    memory: Memory,
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
    /// Loads the artifact's GPU code and weights.
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
        let attention = program.launches.iter().find_map(|launch| match launch.grid {
            Grid::Splits(of) => Some(of),
            _ => None,
        });
        gpu.synchronize()?;
        let regions = program.regions.into_iter().map(|region| region.name).collect();
        Ok(Executor {
            gpu: gpu.clone(),
            plan,
            room,
            launches,
            sample,
            attention,
            memory,
            regions,
            selected: 0,
            trace: None,
        })
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
        let step = self.prepare(pieces)?;
        for n in 0..self.launches() {
            self.run_launch(n, &step)?;
        }
        self.finish(&step);
        Ok(())
    }

    /// The step of these pieces, with inputs and tables written for it.
    pub(super) fn prepare(&mut self, pieces: &[Piece<'_>]) -> Result<Step, RuntimeError> {
        let step = Step::new(pieces, &self.room, self.attention.as_ref())?;
        let mut launches = self.launches.iter();
        let queries =
            launches.any(|ready| ready.launch.rows == Count::Queries && ready.runs(&step, &self.room));
        if queries && step.positions() > self.room.positions {
            return Err(RuntimeError::Step(format!(
                "sequences of {} positions: a step has room for {}",
                step.positions(),
                self.room.positions
            )));
        }
        pieces.iter().try_for_each(|piece| self.check_tokens(piece.tokens))?;
        for (name, memory) in &mut self.memory.inputs {
            let bytes = step.input(name, pieces);
            memory.put(0, &bytes.ok_or_else(|| RuntimeError::Step(format!("input `{name}` is not set")))?)?;
        }
        for table in [Table::Runs, Table::Pages, Table::Sequences, Table::Tiles] {
            self.memory.table(table).put(0, &step.table(table, pieces, &self.room))?;
        }
        Ok(step)
    }

    /// Launches of a step.
    pub(super) fn launches(&self) -> usize {
        self.launches.len()
    }

    /// Starts one of them, if the step has it.
    pub(super) fn run_launch(&mut self, n: usize, step: &Step) -> Result<(), RuntimeError> {
        let ready = &mut self.launches[n];
        let Some(trace) = self.trace.as_mut().filter(|_| ready.runs(step, &self.room)) else {
            return ready.run(step, &self.memory, &self.room);
        };
        let before = self.gpu.mark()?;
        ready.run(step, &self.memory, &self.room)?;
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

    /// Notes what the last launch leaves.
    pub(super) fn finish(&mut self, step: &Step) {
        self.selected = step.count(Count::Selected, None, &self.room);
    }

    /// The buffer that a launch leaves to others.
    pub(super) fn result(&self, n: usize) -> Option<usize> {
        self.launches[n].launch.result
    }

    /// The attention that reads the cache.
    pub(super) fn attention(&self) -> Option<DecodeAttention> {
        self.attention
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
    pub fn logits(&self) -> Result<Vec<f32>, RuntimeError> {
        let Some((memory, cols)) = self.memory.outputs.get("logits") else { return Ok(vec![]) };
        let bytes = memory.get(0, 4 * cols * self.selected)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The tokens that draws take from the logits of the last step's selected rows, one for each, when it is done.
    pub fn sample(&mut self, draws: &[Draw]) -> Result<Vec<u32>, RuntimeError> {
        let sample = self.sample.as_mut().ok_or_else(|| RuntimeError::Kernel("sample".into()))?;
        if draws.len() != self.selected {
            return Err(RuntimeError::Step(format!("{} draws for {} rows", draws.len(), self.selected)));
        }
        let Some(Argument::Region { region, .. }) = sample.launch.arguments.last() else {
            return Err(RuntimeError::Program("`sample` leaves its tokens to no region".into()));
        };
        let (region, rows) = (*region, draws.len());
        if rows > 0 {
            let bytes: Vec<u8> = draws.iter().flat_map(Params::bytes).collect();
            self.memory.table(Table::Draws).put(0, &bytes)?;
            sample.launch(sample.launch.grid.ctas(rows, 0))?;
        }
        let bytes = self.memory.regions[region].get(0, 4 * rows)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    /// Waits until everything is done, and says what went wrong in it.
    pub fn synchronize(&self) -> Result<(), RuntimeError> {
        Ok(self.gpu.synchronize()?)
    }

    /// Rows that are gathered by their tokens must exist.
    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<(), RuntimeError> {
        let by_tokens =
            |b: usize| matches!(&self.plan.buffers[b].place, Place::Input(name) if &**name == "tokens");
        let gathers =
            self.plan.launches.iter().filter(|l| l.kernel == Kernel::Gather && by_tokens(l.inputs[1]));
        for rows in gathers.map(|l| self.plan.buffers[l.inputs[0]].ty.shape.rows()) {
            let Dim::Fixed(rows) = rows else { continue };
            if let Some(bad) = tokens.iter().find(|token| **token as usize >= rows) {
                return Err(RuntimeError::Step(format!("token {bad} is outside the vocabulary of {rows}")));
            }
        }
        Ok(())
    }
}

/// The program of a verified plan.
pub(super) fn read(artifact: &Artifact, plan: &Plan) -> Result<Program, RuntimeError> {
    let files = &artifact.manifest.files;
    if !files.contains_key(CUDA_PROGRAM) {
        let missing = artifact.manifest.cuda.iter().flat_map(fireq_ir::artifact::CudaCode::missing).next();
        let reason =
            missing.map_or_else(|| "there is none".into(), |m| format!("`{}`: {}", m.name, m.reason));
        return Err(RuntimeError::Program(reason));
    }
    let path = artifact.dir.join(CUDA_PROGRAM);
    let text = fs::read_to_string(&path).map_err(|source| RuntimeError::Io { path, source })?;
    let program: Program = serde_json::from_str(&text).map_err(|e| RuntimeError::Program(e.to_string()))?;
    let rows: Vec<Vec<usize>> = plan.buffers.iter().map(rows_of).collect();
    program.verify(&rows).map_err(RuntimeError::Program)?;
    Ok(program)
}

/// Bytes of a row of each part that has an address.
fn rows_of(buffer: &fireq_ir::plan::Buffer) -> Vec<usize> {
    if matches!(buffer.place, Place::Cache(_)) { vec![] } else { row_bytes(buffer) }
}

fn load(gpu: &Gpu, artifact: &Artifact, name: &str) -> Result<super::Function, RuntimeError> {
    let file = format!("{CUDA_KERNELS}/{name}.cubin");
    if !artifact.manifest.files.contains_key(&file) {
        return Err(RuntimeError::Unlisted(file));
    }
    let path = artifact.dir.join(file);
    let cubin = fs::read(&path).map_err(|source| RuntimeError::Io { path, source })?;
    Ok(gpu.load(&cubin)?.function(name)?)
}
