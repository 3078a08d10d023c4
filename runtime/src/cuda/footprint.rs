//! What a program takes of a GPU's memory, known before any of it is allocated.

use std::fmt;

use fireq_ir::Dim;
use fireq_ir::plan::{Place, Plan};
use fireq_kernels::cuda::program::{Extent, Program};
use serde::Serialize;

use super::buffers::row_bytes;
use super::inbox::Layout;
use super::program::read;
use super::{Gpu, Room};
use crate::{Artifact, RuntimeError};

/// Bytes of a GPU's memory, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Weights.
    pub weights: usize,
    /// Pages of the KV caches of all layers.
    pub cache: usize,
    /// Buffers of the plan, for the tokens of a step.
    pub arena: usize,
    /// What kernels leave each other beside the plan, inputs and outputs.
    pub workspace: usize,
}

/// What of an artifact says what it takes.
#[derive(Debug)]
pub struct Needs {
    /// Its plan for GPUs.
    pub plan: Plan,
    program: Program,
}

impl Needs {
    /// That of an artifact.
    pub fn of(artifact: &Artifact) -> Result<Self, RuntimeError> {
        let plan = artifact.cuda_plan()?;
        let program = read(artifact, &plan)?;
        Ok(Needs { plan, program })
    }

    /// What an executor of so much room takes.
    pub fn footprint(&self, room: Room) -> Footprint {
        Footprint::of(&self.plan, &self.program, &room.rounded())
    }
}

impl Footprint {
    /// What an executor of so much room takes.
    pub fn of(plan: &Plan, program: &Program, room: &Room) -> Self {
        let mut bytes = Footprint {
            arena: plan.arena_bytes_per_token.saturating_mul(room.tokens),
            ..Footprint::default()
        };
        for buffer in &plan.buffers {
            let row: usize = row_bytes(buffer).iter().sum();
            match &buffer.place {
                Place::Weight(_) => {
                    let stored = buffer.stored().into_iter().map(aligned);
                    bytes.weights = stored.fold(bytes.weights, usize::saturating_add);
                }
                Place::Output(_) => {
                    let selected = buffer.ty.shape.rows() == Dim::sym("L");
                    let rows = if selected { room.selected } else { room.tokens };
                    bytes.workspace = bytes.workspace.saturating_add(row.saturating_mul(rows));
                }
                Place::Input(_) | Place::Cache(_) | Place::Arena { .. } => {}
            }
        }
        for region in &program.regions {
            let of = if region.per == Extent::Pages { &mut bytes.cache } else { &mut bytes.workspace };
            *of = of.saturating_add(region.bytes.saturating_mul(room.of(region.per)));
        }
        bytes.workspace = bytes.workspace.saturating_add(Layout::of(&room.largest(), room).bytes());
        bytes
    }

    /// All of them.
    pub fn total(&self) -> usize {
        [self.weights, self.cache, self.arena, self.workspace].into_iter().fold(0, usize::saturating_add)
    }

    /// Refuses what is more than there is.
    pub(super) fn check(self, gpu: &Gpu) -> Result<(), RuntimeError> {
        let free = gpu.free_memory()?;
        if self.total() > free { Err(RuntimeError::GpuMemory { wanted: self, free }) } else { Ok(()) }
    }
}

/// Alignment of weights: that of allocations.
pub(super) const ALIGN: usize = 256;

/// Bytes up to where the next part of a weight begins; more than any memory has where that is no number.
pub(super) fn aligned(bytes: usize) -> usize {
    bytes.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX)
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Footprint { weights, cache, arena, workspace } = self;
        write!(
            f,
            "{} bytes of GPU memory ({weights} of weights, {cache} of cache, {arena} for a step's values, {workspace} of workspace)",
            self.total()
        )
    }
}

#[cfg(test)]
mod tests {
    use fireq_ir::plan::parse_plan;

    use super::*;

    #[test]
    fn what_is_claimed_beyond_all_memory_is_that_much() {
        let weight = |n| format!("  %{n} : weight \"w{n}\" f32[2000000,1099511627776]\n");
        let text = format!("plan \"p\" arena 64 {{\n{}{}{}}}\n", weight(0), weight(1), weight(2));
        let plan = parse_plan(&text).unwrap();
        let found = Footprint::of(&plan, &Program::default(), &Room::of_one(16, 16).rounded());
        assert_eq!((found.weights, found.total()), (usize::MAX, usize::MAX));
        assert_eq!(aligned(usize::MAX), usize::MAX);
    }
}
