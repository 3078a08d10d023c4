//! What the host writes for a step: inputs of the plan and tables of the program, in one piece of the GPU's memory, by one copy.

use std::ops::Range;

use fireq_kernels::cuda::params::{Draw, Params, Queries, Run};
use fireq_kernels::cuda::program::Table;

use super::pinned::Stage;
use super::shape::Shape;
use super::{CudaError, DeviceBytes, Gpu, Room};

/// A part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The input `tokens`.
    Tokens,
    /// The input `positions`.
    Positions,
    /// The input `select`.
    Select,
    Runs,
    Sequences,
    Tiles,
    Draws,
    Pages,
}

const ITEMS: [Item; 8] = [
    Item::Tokens,
    Item::Positions,
    Item::Select,
    Item::Runs,
    Item::Sequences,
    Item::Tiles,
    Item::Draws,
    Item::Pages,
];
/// Alignment of each.
const ALIGN: usize = 128;

impl Item {
    /// The input of this name, which every plan of a language model has.
    pub fn input(name: &str) -> Option<Item> {
        match name {
            "tokens" => Some(Item::Tokens),
            "positions" => Some(Item::Positions),
            "select" => Some(Item::Select),
            _ => None,
        }
    }

    pub fn table(table: Table) -> Item {
        match table {
            Table::Runs => Item::Runs,
            Table::Pages => Item::Pages,
            Table::Sequences => Item::Sequences,
            Table::Tiles => Item::Tiles,
            Table::Draws => Item::Draws,
        }
    }

    fn bytes(self, shape: &Shape, room: &Room) -> usize {
        match self {
            Item::Tokens | Item::Positions | Item::Sequences => shape.tokens * 4,
            Item::Select => shape.selected * 4,
            Item::Runs => shape.runs * Run::SIZE,
            Item::Tiles => shape.tiles * Queries::SIZE,
            Item::Draws => shape.draws * Draw::SIZE,
            Item::Pages => shape.sequences * room.page_table() * 4,
        }
    }
}

/// Where items lie in steps of a shape: one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    places: [(usize, usize); ITEMS.len()],
    end: usize,
}

impl Layout {
    /// Bytes of all items.
    pub fn bytes(&self) -> usize {
        self.end
    }

    pub fn of(shape: &Shape, room: &Room) -> Self {
        let mut layout = Layout::default();
        for item in ITEMS {
            let (start, bytes) = (layout.end.next_multiple_of(ALIGN), item.bytes(shape, room));
            layout.places[item as usize] = (start, start + bytes);
            layout.end = start + bytes;
        }
        layout
    }

    /// Bytes of an item.
    pub fn range(&self, item: Item) -> Range<usize> {
        let (start, end) = self.places[item as usize];
        start..end
    }
}

/// The piece of memory, with two of the host's that are copied in turn: one is written while the other is on its way.
pub(super) struct Inbox {
    device: DeviceBytes,
    host: [Stage; 2],
    next: usize,
    /// That of the last step.
    layout: Layout,
}

impl Inbox {
    /// One for steps of at most `shape`.
    pub fn new(gpu: &Gpu, shape: &Shape, room: &Room) -> Result<Self, CudaError> {
        let len = Layout::of(shape, room).end;
        let mut device = gpu.allocate(len)?;
        device.fill(0)?;
        let host = [Stage::new(gpu, len)?, Stage::new(gpu, len)?];
        Ok(Inbox { device, host, next: 0, layout: Layout::default() })
    }

    /// The address of an item in steps with this layout.
    pub fn address(&self, item: Item, layout: &Layout) -> u64 {
        self.device.address() + layout.range(item).start as u64
    }

    /// Copies what `write` gives each item, in the stream's order. Waits for nothing but the copy before the last.
    pub fn send(&mut self, layout: Layout, mut write: impl FnMut(Item, &mut [u8])) -> Result<(), CudaError> {
        let stage = &mut self.host[self.next];
        let bytes = stage.bytes()?;
        for item in ITEMS {
            write(item, &mut bytes[layout.range(item)]);
        }
        stage.send(&mut self.device, 0, layout.end)?;
        (self.next, self.layout) = (1 - self.next, layout);
        Ok(())
    }

    /// The first bytes of an item of the last step.
    pub fn read(&self, item: Item, len: usize) -> Result<Vec<u8>, CudaError> {
        self.device.get(self.layout.range(item).start, len)
    }
}
