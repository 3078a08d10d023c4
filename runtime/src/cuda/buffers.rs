//! A GPU's memory behind a plan's buffers and a program's regions: allocated once, so that addresses never change.

use std::collections::BTreeMap;

use fireq_ir::Dim;
use fireq_ir::plan::{Buffer, Place, Plan, parts};
use fireq_kernels::cuda::program::Program;

use super::footprint::Footprint;
use super::inbox::{Inbox, Item};
use super::pinned::Pinned;
use super::upload::upload;
use super::{CudaError, DeviceBytes, Gpu, Room};
use crate::buffers::part_offsets;
use crate::{RuntimeError, Weights};

/// Everything that kernels read and write.
pub(super) struct Memory {
    /// For each buffer of the plan the addresses of its parts; none for caches, whose pages are regions, and for inputs, whose
    /// places are those of a step.
    pub buffers: Vec<Vec<u64>>,
    /// For each buffer of the plan what it is of that which the host writes for a step.
    pub sent: Vec<Option<Item>>,
    pub regions: Vec<DeviceBytes>,
    pub inbox: Inbox,
    /// Where results go on their way to the host.
    pub outbox: Pinned,
    /// Each with its elements per row.
    pub outputs: BTreeMap<String, (DeviceBytes, usize)>,
    weights: DeviceBytes,
    arena: DeviceBytes,
}

/// Bytes of the host for results: rows of logits of which a step seldom has as many; more go one after the other.
const OUTBOX: usize = 4 << 20;

impl Memory {
    /// The memory of a verified plan and program, with the weights in it and all else zero.
    pub fn new(
        gpu: &Gpu,
        plan: &Plan,
        program: &Program,
        weights: &Weights,
        room: &Room,
    ) -> Result<Self, RuntimeError> {
        Footprint::of(plan, program, room).check(gpu)?;
        let (held, places) = upload(gpu, plan, weights)?;
        let arena = zeroed(gpu, plan.arena_bytes_per_token, room.tokens)?;
        let (mut outputs, mut buffers, mut sent) = (BTreeMap::new(), vec![], vec![]);
        for (buffer, places) in plan.buffers.iter().zip(places) {
            sent.push(item(buffer)?);
            buffers.push(match &buffer.place {
                Place::Weight(_) => places.into_iter().map(|at| held.address() + at as u64).collect(),
                Place::Arena { offset } => {
                    let list = parts(&buffer.ty, buffer.storage).unwrap_or_default();
                    let offsets = part_offsets(&list, *offset);
                    offsets.map(|at| arena.address() + (at * room.tokens) as u64).collect()
                }
                Place::Cache(_) | Place::Input(_) => vec![],
                Place::Output(name) => {
                    let selected = buffer.ty.shape.rows() == Dim::sym("L");
                    let rows = if selected { room.selected } else { room.tokens };
                    let memory = zeroed(gpu, row_bytes(buffer).iter().sum(), rows)?;
                    let address = memory.address();
                    outputs.insert(name.to_string(), (memory, buffer.ty.shape.cols().fixed().unwrap_or(0)));
                    vec![address]
                }
            });
        }
        let regions = program.regions.iter().map(|region| zeroed(gpu, region.bytes, room.of(region.per)));
        let regions = regions.collect::<Result<_, _>>()?;
        let (inbox, outbox) = (Inbox::new(gpu, &room.largest(), room)?, Pinned::new(gpu, OUTBOX)?);
        Ok(Memory { buffers, sent, regions, inbox, outbox, outputs, weights: held, arena })
    }

    /// The first bytes of a part of a buffer, when everything before is done.
    pub fn read(&self, buffer: usize, part: usize, len: usize) -> Result<Vec<u8>, CudaError> {
        if let Some(item) = self.sent[buffer] {
            return self.inbox.read(item, len);
        }
        let address = self.buffers[buffer][part];
        let outputs = self.outputs.values().map(|(memory, _)| memory);
        let all = outputs.chain([&self.weights, &self.arena]);
        let holds = |memory: &&DeviceBytes| {
            (memory.address()..memory.address() + memory.len() as u64).contains(&address)
        };
        let memory = all.into_iter().find(holds);
        let memory = memory.ok_or_else(|| CudaError::Size(format!("buffer {buffer} has no memory")))?;
        memory.get((address - memory.address()) as usize, len)
    }
}

/// What a buffer is of that which the host writes; nothing where it is no input.
fn item(buffer: &Buffer) -> Result<Option<Item>, RuntimeError> {
    let Place::Input(name) = &buffer.place else { return Ok(None) };
    let unset = || RuntimeError::Step(format!("input `{name}` is not set"));
    Item::input(name).ok_or_else(unset).map(Some)
}

/// Bytes of a row of each part.
pub(super) fn row_bytes(buffer: &Buffer) -> Vec<usize> {
    match parts(&buffer.ty, buffer.storage) {
        Some(list) => list.iter().map(fireq_ir::plan::Part::row_bytes).collect(),
        // A vector of as many elements as there are tokens.
        None => vec![buffer.ty.dtype.bits() / 8],
    }
}

fn zeroed(gpu: &Gpu, bytes: usize, times: usize) -> Result<DeviceBytes, RuntimeError> {
    let mut memory = gpu.allocate(bytes.saturating_mul(times))?;
    memory.fill(0)?;
    Ok(memory)
}
