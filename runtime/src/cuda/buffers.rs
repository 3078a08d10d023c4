//! A GPU's memory behind a plan's buffers and a program's regions: allocated once, so that addresses never change.

use std::collections::BTreeMap;

use fireq_ir::Dim;
use fireq_ir::plan::{Buffer, Place, Plan, parts};
use fireq_kernels::cuda::params::{Draw, Params, Queries, Run};
use fireq_kernels::cuda::program::{Program, Table};

use super::footprint::Footprint;
use super::upload::upload;
use super::{CudaError, DeviceBytes, Gpu, Room};
use crate::buffers::part_offsets;
use crate::{RuntimeError, Weights};

/// Everything that kernels read and write.
pub(super) struct Memory {
    /// For each buffer of the plan the addresses of its parts; none for caches, whose pages are regions.
    pub buffers: Vec<Vec<u64>>,
    pub regions: Vec<DeviceBytes>,
    pub inputs: BTreeMap<String, DeviceBytes>,
    /// Each with its elements per row.
    pub outputs: BTreeMap<String, (DeviceBytes, usize)>,
    tables: [DeviceBytes; TABLES.len()],
    weights: DeviceBytes,
    arena: DeviceBytes,
}

pub(super) const TABLES: [Table; 5] =
    [Table::Runs, Table::Pages, Table::Sequences, Table::Tiles, Table::Draws];

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
        let (mut inputs, mut outputs, mut buffers) = (BTreeMap::new(), BTreeMap::new(), vec![]);
        for (buffer, places) in plan.buffers.iter().zip(places) {
            let bytes = row_bytes(buffer);
            buffers.push(match &buffer.place {
                Place::Weight(_) => places.into_iter().map(|at| held.address() + at as u64).collect(),
                Place::Arena { offset } => {
                    let list = parts(&buffer.ty, buffer.storage).unwrap_or_default();
                    let offsets = part_offsets(&list, *offset);
                    offsets.map(|at| arena.address() + (at * room.tokens) as u64).collect()
                }
                Place::Cache(_) => vec![],
                Place::Input(name) => {
                    let memory = zeroed(gpu, bytes.iter().sum(), room.tokens)?;
                    let address = memory.address();
                    inputs.insert(name.to_string(), memory);
                    vec![address]
                }
                Place::Output(name) => {
                    let selected = buffer.ty.shape.rows() == Dim::sym("L");
                    let rows = if selected { room.selected } else { room.tokens };
                    let memory = zeroed(gpu, bytes.iter().sum(), rows)?;
                    let address = memory.address();
                    outputs.insert(name.to_string(), (memory, buffer.ty.shape.cols().fixed().unwrap_or(0)));
                    vec![address]
                }
            });
        }
        let regions = program.regions.iter().map(|region| zeroed(gpu, region.bytes, room.of(region.per)));
        let regions = regions.collect::<Result<_, _>>()?;
        let sizes = TABLES.map(|table| table_bytes(table, room));
        let tables = sizes.into_iter().map(|bytes| zeroed(gpu, bytes, 1)).collect::<Result<Vec<_>, _>>()?;
        let tables = tables.try_into().expect("there are as many as sizes");
        Ok(Memory { buffers, regions, inputs, outputs, tables, weights: held, arena })
    }

    /// The first bytes of a part of a buffer, when everything before is done.
    pub fn read(&self, buffer: usize, part: usize, len: usize) -> Result<Vec<u8>, CudaError> {
        let address = self.buffers[buffer][part];
        let outputs = self.outputs.values().map(|(memory, _)| memory);
        let all = self.inputs.values().chain(outputs).chain([&self.weights, &self.arena]);
        let holds = |memory: &&DeviceBytes| {
            (memory.address()..memory.address() + memory.len() as u64).contains(&address)
        };
        let memory = all.into_iter().find(holds);
        let memory = memory.ok_or_else(|| CudaError::Size(format!("buffer {buffer} has no memory")))?;
        memory.get((address - memory.address()) as usize, len)
    }

    /// What the host writes for a step.
    pub fn table(&mut self, table: Table) -> &mut DeviceBytes {
        &mut self.tables[table as usize]
    }

    /// Where that is.
    pub fn table_address(&self, table: Table) -> u64 {
        self.tables[table as usize].address()
    }
}

/// Bytes of the most that a step writes.
pub(super) fn table_bytes(table: Table, room: &Room) -> usize {
    match table {
        Table::Runs => room.tokens * Run::SIZE,
        Table::Pages => room.sequences * room.page_table() * 4,
        Table::Sequences => room.tokens * 4,
        Table::Tiles => room.tokens * Queries::SIZE,
        Table::Draws => room.selected * Draw::SIZE,
    }
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
