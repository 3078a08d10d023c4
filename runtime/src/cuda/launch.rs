//! A launch of a program: its parameters, of which some are those of a step.

use fireq_kernels::LaunchShape;
use fireq_kernels::cuda::program::{Argument, Count, Launch, Table, parameters};
use fireq_kernels::cuda::{Grid, Sequence};

use super::buffers::Memory;
use super::step::Step;
use super::{Function, Room, encode};
use crate::RuntimeError;

/// A launch with its function, and its parameters as far as they do not depend on a step.
pub(super) struct Ready {
    pub launch: Launch,
    function: Function,
    parameters: Vec<u8>,
    places: Vec<usize>,
}

impl Ready {
    /// Binds a launch to memory.
    pub fn new(
        launch: Launch,
        function: Function,
        memory: &Memory,
        room: &Room,
    ) -> Result<Self, RuntimeError> {
        let (size, places) = parameters(&launch.arguments);
        let mut ready = Ready { function, parameters: vec![0; size], places, launch };
        for n in 0..ready.places.len() {
            let bytes = match &ready.launch.arguments[n] {
                Argument::Map { of, shape } => {
                    let extent = room.of(shape.per);
                    encode(&shape.at(extent), address(of, memory))?.to_vec()
                }
                Argument::U32(number) => number.to_le_bytes().to_vec(),
                Argument::F32(number) => number.to_le_bytes().to_vec(),
                Argument::Count(_) | Argument::Elements(_) => continue,
                other => address(other, memory).to_le_bytes().to_vec(),
            };
            ready.set(n, &bytes);
        }
        Ok(ready)
    }

    fn set(&mut self, field: usize, bytes: &[u8]) {
        self.parameters[self.places[field]..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Whether it runs in a step at all.
    pub fn runs(&self, step: &Step, room: &Room) -> bool {
        let rows = step.count(self.launch.rows, None, room);
        self.launch.when.holds(rows, step.longest, step.keys)
    }

    /// Its launch in a step; one for each sequence that has a past, where rows are that.
    pub fn run(&mut self, step: &Step, memory: &Memory, room: &Room) -> Result<(), RuntimeError> {
        if !self.runs(step, room) {
            return Ok(());
        }
        if self.launch.rows != Count::Past {
            return self.run_for(None, step, memory, room);
        }
        let with_past = step.sequences.iter().enumerate().filter(|(_, sequence)| sequence.past > 0);
        with_past.into_iter().try_for_each(|of| self.run_for(Some(of), step, memory, room))
    }

    fn run_for(
        &mut self,
        of: Option<(usize, &Sequence)>,
        step: &Step,
        memory: &Memory,
        room: &Room,
    ) -> Result<(), RuntimeError> {
        let sequence = of.map(|(_, sequence)| sequence);
        let rows = step.count(self.launch.rows, sequence, room);
        if rows == 0 {
            return Ok(());
        }
        for n in 0..self.places.len() {
            let bytes = match (&self.launch.arguments[n], of) {
                (Argument::Count(count), _) => {
                    (step.count(*count, sequence, room) as u32).to_le_bytes().to_vec()
                }
                (Argument::Elements(cols), _) => ((rows * cols) as u64).to_le_bytes().to_vec(),
                (Argument::Table(Table::Pages), Some((n, _))) => {
                    let row = n * room.page_table() * 4;
                    (memory.table_address(Table::Pages) + row as u64).to_le_bytes().to_vec()
                }
                (Argument::Region { region, by_key }, Some((_, sequence))) => {
                    (memory.regions[*region].address() + (by_key * sequence.key) as u64)
                        .to_le_bytes()
                        .to_vec()
                }
                _ => continue,
            };
            self.set(n, &bytes);
        }
        let grid = match self.launch.grid {
            Grid::Splits(of) => [of.kv_heads, rows, step.count(Count::Parts, None, room)].map(|n| n as u32),
            grid => grid.ctas(if sequence.is_some() { 1 } else { rows }, sequence.map_or(0, |s| s.past)),
        };
        self.launch(grid)
    }

    /// Starts it with the parameters that it has.
    pub fn launch(&self, grid: [u32; 3]) -> Result<(), RuntimeError> {
        let cta = self.launch.cta;
        let shape = LaunchShape {
            grid,
            block: [cta.threads as u32, 1, 1],
            cluster: [cta.cluster as u32, 1, 1],
            dynamic_shared: cta.dynamic_shared as u32,
        };
        // SAFETY: the program is verified against the plan, whose memory has the room that steps are checked against; it and the
        // kernels are what one code generator made, as the artifact's hashes say.
        Ok(unsafe { self.function.launch(&shape, &self.parameters) }?)
    }
}

/// Where an argument's memory is; 0 where it has none.
fn address(argument: &Argument, memory: &Memory) -> u64 {
    match argument {
        Argument::Buffer { buffer, part, offset } => memory.buffers[*buffer][*part] + *offset as u64,
        Argument::Region { region, .. } => memory.regions[*region].address(),
        Argument::Table(table) => memory.table_address(*table),
        _ => 0,
    }
}
