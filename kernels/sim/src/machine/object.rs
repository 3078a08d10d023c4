//! Instructions on memory barrier objects.

use std::collections::BTreeMap;

use super::Machine;
use super::access::aligned;
use super::step::Next;
use super::transfer::{Group, Transfer};
use super::warp::{Warp, lanes};
use crate::fault::{AtLane, FaultKind, Trouble};
use crate::mbarrier::Barrier;
use crate::op::{Address, Mbarrier};
use crate::program::Reg;
use crate::shared::Agent;

impl Machine<'_> {
    pub(super) fn mbarrier(
        &mut self,
        (w, pc): (usize, u32),
        at: &Address,
        op: &Mbarrier,
        mask: u32,
    ) -> Result<Next, Trouble> {
        let mut failed = false;
        let mut copies: BTreeMap<(usize, u64), u32> = BTreeMap::new();
        for lane in lanes(mask) {
            let (cta, offset) = self.shared_target(w, at, lane).at_lane(lane)?;
            aligned(offset, 8, "mbarrier").at_lane(lane)?;
            if let Mbarrier::ArriveOnCopies { .. } = op {
                *copies.entry((cta, offset)).or_default() += 1;
            }
            failed |= !self.barrier_step(w, lane, (cta, offset), op).at_lane(lane)?;
        }
        for ((cta, offset), count) in copies {
            let stamp = self.warps[w].issue();
            let arrivals = Some((cta, offset, count));
            let lane = mask.trailing_zeros() as usize;
            let (group, pieces) = (Group::Barrier, vec![]);
            let transfer = Transfer { warp: w, pc, lane, group, pieces, barrier: None, arrivals, stamp };
            self.issue(transfer)?;
        }
        if failed {
            return Ok(Next::Yield);
        }
        if !matches!(op, Mbarrier::Wait { .. }) {
            self.warps[w].tick();
            self.progress += 1;
        }
        Ok(Next::Follow)
    }

    /// Makes the barrier objects that the warp knows of visible to asynchronous copies.
    pub(super) fn show_barriers(&mut self, w: usize) {
        let warp = &self.warps[w];
        let who =
            Agent { stamp: warp.stamp(), knowledge: &warp.knowledge, asynchronous: false, access: "fence" };
        let shared = &mut self.ctas[warp.cta].shared;
        let known: Vec<u64> =
            shared.barriers.keys().copied().filter(|at| shared.check_barrier(*at, &who).is_ok()).collect();
        for at in known {
            if let Some(barrier) = shared.barriers.get_mut(&at) {
                barrier.visible = true;
            }
        }
    }

    /// One lane's operation on a barrier object; false where a wait failed.
    fn barrier_step(
        &mut self,
        w: usize,
        lane: usize,
        (cta, offset): (usize, u64),
        op: &Mbarrier,
    ) -> Result<bool, FaultKind> {
        let warps = self.warps.len();
        let misuse = |reason: String| FaultKind::Mbarrier { offset, reason };
        let warp = &mut self.warps[w];
        let shared = &mut self.ctas[cta].shared;
        let who = Agent {
            stamp: warp.stamp(),
            knowledge: &warp.knowledge,
            asynchronous: false,
            access: "mbarrier",
        };
        match op {
            Mbarrier::Init { count } => {
                if cta != warp.cta || shared.barriers.contains_key(&offset) {
                    return Err(misuse("initialised while it is a valid object, or in another CTA".into()));
                }
                shared.write(offset, 8, &who)?;
                shared.mark_barrier(offset, true);
                let count = warp.rows[*count as usize][lane] as u32;
                shared.barriers.insert(offset, Barrier::new(count, warps).map_err(misuse)?);
            }
            Mbarrier::Invalidate => {
                shared.check_barrier(offset, &who)?;
                shared.barriers.remove(&offset).ok_or_else(|| misuse("there is no barrier object".into()))?;
                shared.mark_barrier(offset, false);
            }
            Mbarrier::Wait { .. } if cta != warp.cta => {
                return Err(misuse("waited for from another CTA".into()));
            }
            _ => {
                shared.check_barrier(offset, &who)?;
                let barrier = shared.barriers.get_mut(&offset);
                let barrier = barrier.ok_or_else(|| misuse("there is no barrier object".into()))?;
                return count(barrier, warp, lane, op).map_err(misuse);
            }
        }
        Ok(true)
    }
}

/// What a lane counts on an existing barrier, or asks of it; false where a wait failed.
fn count(barrier: &mut Barrier, warp: &mut Warp, lane: usize, op: &Mbarrier) -> Result<bool, String> {
    let value = |row: Reg| warp.rows[row as usize][lane];
    match op {
        Mbarrier::Arrive { state, count, expect, drop } => {
            barrier.knowledge.join(&warp.knowledge);
            let phase = barrier.phase;
            if let Some(bytes) = expect {
                barrier.expect_bytes(value(*bytes) as u32)?;
            }
            barrier.arrive(value(*count) as u32, *drop)?;
            if let Some(row) = state {
                warp.rows[*row as usize][lane] = phase;
            }
        }
        Mbarrier::ExpectTx { bytes } => barrier.expect_bytes(value(*bytes) as u32)?,
        Mbarrier::CompleteTx { bytes } => barrier.complete_bytes(value(*bytes) as u32)?,
        Mbarrier::ArriveOnCopies { increments: true } => barrier.expect_arrivals(1)?,
        Mbarrier::Wait { done, phase, parity } => {
            let asked = value(*phase);
            let over = if *parity { barrier.phase & 1 != asked & 1 } else { barrier.phase > asked };
            warp.rows[*done as usize][lane] = over.into();
            if over {
                warp.knowledge.join(&barrier.completed);
            }
            return Ok(over);
        }
        Mbarrier::ArriveOnCopies { increments: false } | Mbarrier::Init { .. } | Mbarrier::Invalidate => {}
    }
    Ok(true)
}
