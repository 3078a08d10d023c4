//! What a launch executed and moved.

use crate::op::Op;

/// Counts of one launch, over all CTAs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// PTX instructions, once per warp that executed them.
    pub instructions: u64,
    /// PTX instructions, once per active lane.
    pub lane_instructions: u64,
    /// Warp instructions by class.
    pub classes: Classes,
    /// Bytes that lanes and copies read from global memory.
    pub global_read: u64,
    /// Bytes written to global memory.
    pub global_written: u64,
    /// Bytes read from shared memory, tensor cores included.
    pub shared_read: u64,
    /// Bytes written to shared memory.
    pub shared_written: u64,
    /// Bytes read from and written to local memory.
    pub local: u64,
    /// Cycles that accesses to shared memory took beyond the first of each conflict-free group.
    pub bank_conflicts: u64,
    /// 32-byte sectors that loads and stores of global memory touched.
    pub sectors: u64,
    /// Sectors that the same bytes fill when they are dense.
    pub sectors_needed: u64,
    /// `griddepcontrol.wait`, once per warp that executed it.
    pub grid_waits: u64,
    /// Multiply-add operations of tensor cores.
    pub tensor_macs: u64,
}

/// Warp instructions by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Classes {
    /// Arithmetic, logic, moves and conversions.
    pub arithmetic: u64,
    /// Branches and exits.
    pub control: u64,
    /// Loads and stores of any space, atomics included.
    pub memory: u64,
    /// Shuffles, votes and other exchanges within a warp.
    pub exchange: u64,
    /// Barriers, fences and waits.
    pub synchronisation: u64,
    /// Asynchronous copies.
    pub copies: u64,
    /// Tensor-core instructions and matrix loads.
    pub matrix: u64,
}

impl Classes {
    /// The count that an instruction belongs to.
    pub(crate) fn of(&mut self, op: &Op) -> &mut u64 {
        match op {
            Op::Lanes { .. } | Op::Clock { .. } | Op::MapRank { .. } | Op::Nop => &mut self.arithmetic,
            Op::Branch { .. } | Op::BranchTable { .. } | Op::Exit | Op::Trap => &mut self.control,
            Op::Load { .. } | Op::Store { .. } | Op::Atomic { .. } => &mut self.memory,
            Op::Shuffle { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Redux { .. }
            | Op::ActiveMask { .. }
            | Op::Elect { .. } => &mut self.exchange,
            Op::Copy { .. } | Op::Bulk(_) => &mut self.copies,
            Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::Mma { .. } | Op::Wgmma(_) => {
                &mut self.matrix
            }
            _ => &mut self.synchronisation,
        }
    }
}
