//! One instruction of one fragment.

use super::Machine;
use super::warp::{Wait, lanes};
use crate::fault::{FaultKind, Trouble, undefined};
use crate::op::Op;
use crate::program::{Inst, Kernel, LANES, Reg, Row};

/// How a fragment goes on.
pub(super) enum Next {
    /// With the next instruction.
    Follow,
    /// Elsewhere, with all its lanes.
    Jumped,
    /// Elsewhere; fragments have changed.
    Moved,
    /// With the next instruction, after other warps had a turn.
    Yield,
    /// Again with this instruction, once something has changed.
    Retry,
    /// With this instruction, or the next one, when the wait is over.
    Wait(Wait, bool),
}

impl Machine<'_> {
    /// Executes one instruction; tells whether the same fragment may go on at once.
    pub(super) fn step(&mut self, w: usize, fragment: usize) -> Result<bool, Trouble> {
        let kernel: &Kernel = self.world.kernel;
        let warp = &mut self.warps[w];
        if warp.at_join(fragment) {
            warp.arrive(fragment);
            return Ok(false);
        }
        let f = warp.fragments[fragment];
        let inst = &kernel.code[f.pc as usize];
        let mask = f.mask & guard(&warp.rows, inst.guard);
        if inst.first {
            self.stats.instructions += 1;
            self.stats.lane_instructions += u64::from(mask.count_ones());
            *self.stats.classes.of(&inst.op) += 1;
        }
        if mask == 0 {
            warp.fragments[fragment].pc += 1;
            return Ok(true);
        }
        if kernel.matrix_async && self.defer_or_refuse(w, inst, mask)? {
            self.warps[w].fragments[fragment].pc += 1;
            return Ok(true);
        }
        if let Op::Lanes { f, d, s, .. } = &inst.op {
            let rows = &mut self.warps[w].rows;
            let result = f(s.map(|r| &rows[r as usize]));
            assign(&mut rows[*d as usize], &result, mask);
            self.warps[w].fragments[fragment].pc += 1;
            return Ok(true);
        }
        match self.gather(w, fragment, inst, mask)? {
            None => Ok(false),
            Some((mask, others)) => {
                let next = self.execute(w, fragment, inst, mask)?;
                self.follow(w, fragment, &others, &next);
                Ok(matches!(next, Next::Follow | Next::Jumped))
            }
        }
    }

    fn execute(&mut self, w: usize, fragment: usize, inst: &Inst, mask: u32) -> Result<Next, Trouble> {
        match &inst.op {
            Op::Lanes { .. } | Op::Nop => {}
            Op::Branch { .. } | Op::BranchTable { .. } => return self.branch(w, fragment, &inst.op, mask),
            Op::Exit => {
                self.exit(w, fragment, mask)?;
                return Ok(Next::Moved);
            }
            Op::Trap => return Err(FaultKind::Trap.into()),
            Op::Yield => return Ok(Next::Yield),
            Op::Clock { d } => {
                let now = [self.stats.instructions; LANES];
                assign(&mut self.warps[w].rows[*d as usize], &now, mask);
            }
            Op::Load { at, d, sign, constant } => self.load(w, at, d, *sign, *constant, mask)?,
            Op::Store { at, s } => self.store(w, at, s, mask)?,
            Op::Atomic { at, f, d, s } => self.atomic(w, at, *f, *d, *s, mask)?,
            Op::Shuffle { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Redux { .. }
            | Op::ActiveMask { .. }
            | Op::Elect { .. } => self.exchange(w, &inst.op, mask)?,
            Op::MapRank { d, a, rank, generic } => self.map_rank(w, *d, [*a, *rank], *generic, mask)?,
            Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::Mma { .. } => self.matrix(w, &inst.op)?,
            _ => return self.synchronise(w, fragment, inst, mask),
        }
        Ok(Next::Follow)
    }

    fn synchronise(&mut self, w: usize, fragment: usize, inst: &Inst, mask: u32) -> Result<Next, Trouble> {
        let first = mask.trailing_zeros() as usize;
        let uniform = |rows: &[Row], row: Reg| rows[row as usize][first] as u32;
        match &inst.op {
            Op::WarpSync { .. } => self.progress += 1,
            Op::Barrier { id, count, waits, reduce } => {
                let rows = &self.warps[w].rows;
                let (id, count) = (uniform(rows, *id) as usize, count.map(|c| uniform(rows, c)));
                if self.arrive_at_barrier(w, id, count, *waits, mask, *reduce)? {
                    return Ok(Next::Wait(Wait::Barrier(id), true));
                }
            }
            Op::GridWait => {
                self.warps[w].waited |= mask;
                self.stats.grid_waits += 1;
            }
            Op::ClusterArrive => self.arrive_at_cluster(w)?,
            Op::ClusterWait => {
                if !self.pass_cluster(w)? {
                    return Ok(Next::Wait(Wait::Cluster, false));
                }
            }
            Op::ProxyFence => {
                self.warps[w].knowledge.fence();
                self.show_barriers(w);
            }
            Op::BarrierFence => self.show_barriers(w),
            Op::Mbarrier { at, op } => {
                let pc = self.warps[w].fragments[fragment].pc;
                return self.mbarrier((w, pc), at, op, mask);
            }
            Op::Copy { .. } | Op::Bulk(_) => {
                let pc = self.warps[w].fragments[fragment].pc;
                self.transfer(w, pc, &inst.op, mask)?;
            }
            Op::CopyCommit => self.warps[w].copies.open += 1,
            Op::BulkCommit => self.warps[w].bulk.open += 1,
            Op::CopyWait { pending } => self.wait_copies(w, *pending)?,
            Op::BulkWait { pending, .. } => self.wait_bulk(w, *pending)?,
            Op::Wgmma(_) => {
                let pc = self.warps[w].fragments[fragment].pc;
                self.issue_wgmma(w, pc)?;
            }
            Op::WgmmaFence => self.warps[w].matrix.fence(),
            Op::WgmmaCommit => {
                self.warps[w].matrix.open += 1;
                self.progress += 1;
            }
            Op::WgmmaWait { pending } => return Ok(self.wait_wgmma(w, *pending)),
            _ => return Err(undefined("this instruction is not executable").into()),
        }
        Ok(Next::Follow)
    }

    fn branch(&mut self, w: usize, fragment: usize, op: &Op, mask: u32) -> Result<Next, Trouble> {
        let warp = &mut self.warps[w];
        let f = warp.fragments[fragment];
        let mut targets: Vec<(u32, u32)> = vec![];
        let rejoin = match op {
            Op::Branch { target, rejoin } => {
                targets.push((*target, mask));
                *rejoin
            }
            Op::BranchTable { index, targets: table, rejoin } => {
                for lane in lanes(mask) {
                    let entry = table.get(warp.rows[*index as usize][lane] as usize);
                    let Some(pc) = entry else {
                        return Err(undefined("index past the end of a branch table").into());
                    };
                    match targets.iter_mut().find(|(to, _)| to == pc) {
                        Some((_, lanes)) => *lanes |= 1 << lane,
                        None => targets.push((*pc, 1 << lane)),
                    }
                }
                *rejoin
            }
            _ => u32::MAX,
        };
        if f.mask != mask {
            targets.push((f.pc + 1, f.mask & !mask));
        }
        warp.jump(fragment, &targets, rejoin);
        Ok(if targets.len() == 1 { Next::Jumped } else { Next::Moved })
    }

    fn exit(&mut self, w: usize, fragment: usize, mask: u32) -> Result<(), Trouble> {
        self.warps[w].exit(fragment, mask);
        self.progress += 1;
        if self.warps[w].live != 0 {
            return Ok(());
        }
        if !self.warps[w].matrix.queue.is_empty() {
            return Err(FaultKind::AccumulatorInFlight("left").into());
        }
        let cta = self.warps[w].cta;
        for id in 0..self.ctas[cta].barriers.len() {
            self.settle_barrier(cta, id)?;
        }
        self.settle_cluster();
        let first = self.ctas[cta].first_warp;
        let mut warps = self.warps[first..first + self.ctas[cta].warps].iter();
        if warps.all(|w| w.live == 0) {
            if let Some(what) = self.ctas[cta].shared.in_flight() {
                return Err(FaultKind::UnfinishedTransfer(what).into());
            }
            self.ctas[cta].finished = true;
        }
        Ok(())
    }
}

/// Lanes on which the guard holds.
fn guard(rows: &[Row], guard: Option<(Reg, bool)>) -> u32 {
    guard.map_or(u32::MAX, |(row, negated)| {
        let bits = mask_of(&rows[row as usize]);
        if negated { !bits } else { bits }
    })
}

/// Bit 0 of every lane.
pub(super) fn mask_of(row: &Row) -> u32 {
    row.iter().enumerate().fold(0, |mask, (lane, v)| mask | ((*v as u32 & 1) << lane))
}

/// Writes the lanes of the mask.
pub(super) fn assign(row: &mut Row, value: &Row, mask: u32) {
    if mask == u32::MAX {
        *row = *value;
        return;
    }
    for lane in lanes(mask) {
        row[lane] = value[lane];
    }
}
