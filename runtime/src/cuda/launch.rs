//! A launch of a program: its parameters, of which some are those of a step.

use fireq_kernels::LaunchShape;
use fireq_kernels::cuda::program::{Argument, Count, Launch, Table, parameters};
use fireq_kernels::cuda::{Grid, Sequence};

use super::buffers::Memory;
use super::inbox::{Item, Layout};
use super::shape::Shape;
use super::{Function, Room, encode};
use crate::RuntimeError;

/// A launch with its function, and its parameters as far as they do not depend on a step.
pub(super) struct Ready {
    pub launch: Launch,
    function: Function,
    parameters: Vec<u8>,
    places: Vec<usize>,
    /// Those of its arguments that depend on a step.
    varying: Vec<usize>,
}

/// Where everything is in a step.
pub(super) struct Places<'a> {
    pub memory: &'a Memory,
    pub layout: &'a Layout,
    pub room: &'a Room,
}

impl Ready {
    /// Binds a launch to memory.
    pub fn new(
        launch: Launch,
        function: Function,
        memory: &Memory,
        room: &Room,
    ) -> Result<Self, RuntimeError> {
        function.allow_shared(launch.cta.dynamic_shared as u32)?;
        let (size, places) = parameters(&launch.arguments);
        let mut ready = Ready { function, parameters: vec![0; size], places, varying: vec![], launch };
        for n in 0..ready.places.len() {
            let bytes = match &ready.launch.arguments[n] {
                Argument::Map { of, shape } => {
                    let at = address(of, memory).ok_or_else(|| {
                        RuntimeError::Program(format!("`{}`: a descriptor of an input", ready.launch.symbol))
                    })?;
                    encode(&shape.at(room.of(shape.per)), at)?.to_vec()
                }
                Argument::U32(number) => number.to_le_bytes().to_vec(),
                Argument::F32(number) => number.to_le_bytes().to_vec(),
                other => match address(other, memory) {
                    Some(at) if !ready.follows_sequence(other) => at.to_le_bytes().to_vec(),
                    _ => {
                        ready.varying.push(n);
                        continue;
                    }
                },
            };
            ready.set(n, &bytes);
        }
        Ok(ready)
    }

    /// Whether an argument is another for each sequence.
    fn follows_sequence(&self, argument: &Argument) -> bool {
        self.launch.rows == Count::Past && matches!(argument, Argument::Region { .. })
    }

    fn set(&mut self, field: usize, bytes: &[u8]) {
        self.parameters[self.places[field]..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Whether it runs in steps of a shape at all.
    pub fn runs(&self, shape: &Shape, room: &Room) -> bool {
        let rows = shape.count(self.launch.rows, None, room);
        self.launch.when.holds(rows, shape.longest, shape.keys)
    }

    /// Its launch in steps of a shape; none where its rows are those of a sequence.
    pub fn run(&mut self, shape: &Shape, at: &Places<'_>) -> Result<(), RuntimeError> {
        if self.runs(shape, at.room) { self.run_for(None, shape, at) } else { Ok(()) }
    }

    /// Its launches for sequences that have a past, where its rows are that.
    pub fn run_each(
        &mut self,
        sequences: &[Sequence],
        shape: &Shape,
        at: &Places<'_>,
    ) -> Result<(), RuntimeError> {
        if !self.runs(shape, at.room) {
            return Ok(());
        }
        let mut with_past = sequences.iter().enumerate().filter(|(_, sequence)| sequence.past > 0);
        with_past.try_for_each(|of| self.run_for(Some(of), shape, at))
    }

    fn run_for(
        &mut self,
        of: Option<(usize, &Sequence)>,
        shape: &Shape,
        at: &Places<'_>,
    ) -> Result<(), RuntimeError> {
        let sequence = of.map(|(_, sequence)| sequence);
        let rows = shape.count(self.launch.rows, sequence, at.room);
        if rows == 0 {
            return Ok(());
        }
        for n in 0..self.varying.len() {
            let field = self.varying[n];
            let (value, bytes) = match (&self.launch.arguments[field], of) {
                (Argument::Count(count), _) => (shape.count(*count, sequence, at.room) as u64, 4),
                (Argument::Elements(cols), _) => ((rows * cols) as u64, 8),
                (Argument::Table(Table::Pages), Some((n, _))) => {
                    (at.item(Item::Pages) + (n * at.room.page_table() * 4) as u64, 8)
                }
                (Argument::Region { region, by_key }, Some((_, sequence))) => {
                    (at.memory.regions[*region].address() + (by_key * sequence.key) as u64, 8)
                }
                (argument, _) => (at.address(argument), 8),
            };
            self.set(field, &value.to_le_bytes()[..bytes]);
        }
        let grid = match self.launch.grid {
            Grid::Splits(of) => [of.kv_heads, rows, shape.split.parts].map(|n| n as u32),
            grid => grid.ctas(if sequence.is_some() { 1 } else { rows }, sequence.map_or(0, |s| s.past)),
        };
        self.launch(grid)
    }

    /// Starts it with the parameters that it has.
    fn launch(&self, grid: [u32; 3]) -> Result<(), RuntimeError> {
        let cta = self.launch.cta;
        let shape = LaunchShape {
            grid,
            block: [cta.threads as u32, 1, 1],
            cluster: [cta.cluster as u32, 1, 1],
            dynamic_shared: cta.dynamic_shared as u32,
        };
        // SAFETY: the program is verified against the plan, whose memory has the room that steps are checked against; it and the
        // kernels are what one code generator made, as the artifact's hashes say.
        Ok(unsafe { self.function.launch_as(&shape, &self.parameters, self.launch.overlaps) }?)
    }
}

impl Places<'_> {
    fn item(&self, item: Item) -> u64 {
        self.memory.inbox.address(item, self.layout)
    }

    /// Where an argument's memory is in a step; 0 where it has none.
    fn address(&self, argument: &Argument) -> u64 {
        match argument {
            Argument::Table(table) => self.item(Item::table(*table)),
            Argument::Buffer { buffer, offset, .. } => match self.memory.sent[*buffer] {
                Some(item) => self.item(item) + *offset as u64,
                None => address(argument, self.memory).unwrap_or(0),
            },
            _ => address(argument, self.memory).unwrap_or(0),
        }
    }
}

/// Where an argument's memory is, in all steps; 0 where it has none.
fn address(argument: &Argument, memory: &Memory) -> Option<u64> {
    match argument {
        Argument::Nothing => Some(0),
        Argument::Buffer { buffer, part, offset } => {
            memory.buffers[*buffer].get(*part).map(|at| at + *offset as u64)
        }
        Argument::Region { region, .. } => Some(memory.regions[*region].address()),
        _ => None,
    }
}
