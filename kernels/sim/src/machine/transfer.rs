//! Asynchronous copies and barrier objects.

use std::collections::BTreeMap;

use super::Machine;
use super::access::{Target, aligned};
use super::step::Next;
use super::warp::{Groups, lanes};
use crate::clock::Stamp;
use crate::fault::{AtLane, Fault, FaultKind, Trouble, undefined};
use crate::launch::Timing;
use crate::mbarrier::Barrier;
use crate::op::{Address, Bulk, Mbarrier, Op, Space};
use crate::program::Reg;
use crate::shared::Agent;

/// An asynchronous operation that has been issued and not performed.
pub(super) struct Transfer {
    pub warp: usize,
    pub pc: u32,
    pub lane: usize,
    pub group: Group,
    pub pieces: Vec<Piece>,
    /// The barrier that counts its bytes: CTA, offset, bytes.
    pub barrier: Option<(usize, u64, u32)>,
    /// Arrivals on a barrier once earlier copies of the warp are done: CTA, offset, count.
    pub arrivals: Option<(usize, u64, u32)>,
    pub stamp: Stamp,
}

/// How its completion is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Barrier,
    Copy(u64),
    Bulk(u64),
}

/// Bytes to move; where `from` is absent they are zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub from: Option<End>,
    pub to: End,
    pub bytes: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Global(u64),
    Shared(usize, u64),
}

impl Machine<'_> {
    /// Issues the copy of every lane.
    pub(super) fn transfer(&mut self, w: usize, pc: u32, op: &Op, mask: u32) -> Result<(), Trouble> {
        for lane in lanes(mask) {
            let made = match op {
                Op::Copy { to, from, bytes, from_bytes } => {
                    self.make_copy(w, lane, [to, from], *bytes, *from_bytes).at_lane(lane)?
                }
                Op::Bulk(bulk) => self.make_bulk(w, lane, bulk).at_lane(lane)?,
                _ => vec![],
            };
            for (group, pieces, barrier) in made {
                let stamp = self.warps[w].issue();
                let transfer = Transfer { warp: w, pc, lane, group, pieces, barrier, arrivals: None, stamp };
                self.issue(transfer).at_lane(lane)?;
            }
        }
        self.progress += 1;
        Ok(())
    }

    /// Checks what the operation touches, marks it as in flight, and performs it where it is early.
    fn issue(&mut self, transfer: Transfer) -> Result<(), FaultKind> {
        let generic = matches!(transfer.group, Group::Copy(_));
        let access = if generic { "cp.async" } else { "a bulk copy" };
        let warp = &mut self.warps[transfer.warp];
        let who = Agent { stamp: transfer.stamp, knowledge: &warp.knowledge, asynchronous: !generic, access };
        for piece in &transfer.pieces {
            match piece.from {
                Some(End::Global(address)) => self.memory.check(address, piece.bytes, "read")?,
                Some(End::Shared(cta, at)) => {
                    self.ctas[cta].shared.read(at, piece.bytes, &who)?;
                    self.ctas[cta].shared.mark(at, piece.bytes, false, true);
                }
                None => {}
            }
            match piece.to {
                End::Global(address) => self.memory.check(address, piece.bytes, "write")?,
                End::Shared(cta, at) => {
                    self.ctas[cta].shared.write(at, piece.bytes, &who)?;
                    self.ctas[cta].shared.mark(at, piece.bytes, true, true);
                }
            }
        }
        let stamped = |groups: &mut Groups, group| groups.stamps.push_back((group, transfer.stamp));
        match transfer.group {
            Group::Copy(group) => stamped(&mut warp.copies, group),
            Group::Bulk(group) => stamped(&mut warp.bulk, group),
            Group::Barrier => {}
        }
        if self.world.options.timing == Timing::Early {
            return self.perform(&transfer);
        }
        self.transfers.push(transfer);
        Ok(())
    }

    /// Performs a pending operation that nothing waits for by name.
    pub(super) fn complete(&mut self, index: usize) -> Result<(), Fault> {
        let transfer = self.take(index);
        let done = self.perform(&transfer).at_lane(transfer.lane);
        done.map_err(|trouble| self.fault(trouble, transfer.warp, transfer.pc))
    }

    /// Takes an operation out, or the oldest copy that has to precede it.
    fn take(&mut self, index: usize) -> Transfer {
        let chosen = &self.transfers[index];
        let first = if chosen.arrivals.is_some() {
            self.transfers.iter().position(|t| t.warp == chosen.warp && matches!(t.group, Group::Copy(_)))
        } else {
            None
        };
        self.transfers.remove(first.unwrap_or(index))
    }

    fn perform(&mut self, transfer: &Transfer) -> Result<(), FaultKind> {
        for piece in &transfer.pieces {
            let data = match piece.from {
                None => vec![0; piece.bytes],
                Some(End::Global(address)) => {
                    self.stats.global_read += piece.bytes as u64;
                    self.memory.read(address, piece.bytes)?.to_vec()
                }
                Some(End::Shared(cta, at)) => {
                    self.stats.shared_read += piece.bytes as u64;
                    self.ctas[cta].shared.mark(at, piece.bytes, false, false);
                    self.ctas[cta].shared.data[at as usize..at as usize + piece.bytes].to_vec()
                }
            };
            match piece.to {
                End::Global(address) => {
                    self.stats.global_written += piece.bytes as u64;
                    self.memory.store(address, &data)?;
                }
                End::Shared(cta, at) => {
                    self.stats.shared_written += piece.bytes as u64;
                    self.ctas[cta].shared.mark(at, piece.bytes, true, false);
                    self.ctas[cta].shared.data[at as usize..at as usize + piece.bytes].copy_from_slice(&data);
                }
            }
        }
        if let Some((cta, offset, bytes)) = transfer.barrier {
            let barrier = self.barrier(cta, offset)?;
            barrier.knowledge.seen.raise(transfer.stamp);
            barrier.complete_bytes(bytes).map_err(|reason| FaultKind::Mbarrier { offset, reason })?;
        }
        if let Some((cta, offset, count)) = transfer.arrivals {
            let knowledge = self.warps[transfer.warp].knowledge.clone();
            let barrier = self.barrier(cta, offset)?;
            barrier.knowledge.join(&knowledge);
            barrier.knowledge.seen.raise(transfer.stamp);
            barrier.arrive(count, false).map_err(|reason| FaultKind::Mbarrier { offset, reason })?;
        }
        self.progress += 1;
        Ok(())
    }

    pub(super) fn wait_copies(&mut self, w: usize, pending: u32) -> Result<(), Trouble> {
        let limit = self.warps[w].copies.open.saturating_sub(pending.into());
        self.force(w, |group| matches!(group, Group::Copy(g) if g < limit))?;
        let warp = &mut self.warps[w];
        observe(&mut warp.copies, &mut warp.knowledge.seen, limit);
        Ok(())
    }

    pub(super) fn wait_bulk(&mut self, w: usize, pending: u32) -> Result<(), Trouble> {
        let limit = self.warps[w].bulk.open.saturating_sub(pending.into());
        self.force(w, |group| matches!(group, Group::Bulk(g) if g < limit))?;
        let warp = &mut self.warps[w];
        observe(&mut warp.bulk, &mut warp.knowledge.seen, limit);
        Ok(())
    }

    fn force(&mut self, w: usize, due: impl Fn(Group) -> bool) -> Result<(), FaultKind> {
        while let Some(i) = self.transfers.iter().position(|t| t.warp == w && due(t.group)) {
            let transfer = self.transfers.remove(i);
            self.perform(&transfer)?;
        }
        Ok(())
    }

    fn make_copy(
        &mut self,
        w: usize,
        lane: usize,
        [to, from]: [&Address; 2],
        bytes: u32,
        from_bytes: Option<Reg>,
    ) -> Result<Vec<Made>, FaultKind> {
        let (to_address, from_address) = (self.address(w, to, lane), self.address(w, from, lane));
        aligned(to_address, bytes.into(), "cp.async")?;
        aligned(from_address, bytes.into(), "cp.async")?;
        let read = from_bytes.map_or(bytes, |row| self.warps[w].rows[row as usize][lane] as u32);
        if read > bytes {
            return Err(undefined(format!("cp.async reads {read} bytes to write {bytes}")));
        }
        let (cta, at) = self.shared_target(w, to, lane)?;
        let read = read as usize;
        let data = Piece { from: Some(End::Global(from_address)), to: End::Shared(cta, at), bytes: read };
        let zeros =
            Piece { from: None, to: End::Shared(cta, at + read as u64), bytes: bytes as usize - read };
        let pieces = [data, zeros].into_iter().filter(|p| p.bytes > 0).collect();
        Ok(vec![(Group::Copy(self.warps[w].copies.open), pieces, None)])
    }

    fn make_bulk(&mut self, w: usize, lane: usize, bulk: &Bulk) -> Result<Vec<Made>, FaultKind> {
        let value = |machine: &Self, row: Reg| machine.warps[w].rows[row as usize][lane];
        match bulk {
            Bulk::TensorLoad { .. } | Bulk::TensorStore { .. } => self.make_tensor(w, lane, bulk),
            Bulk::Load { to, from, bytes, barrier, mask } => {
                let (from, bytes) = (value(self, *from), value(self, *bytes) as usize);
                let (_, at) = self.shared_target(w, to, lane)?;
                multiples(&[from, at, bytes as u64], 16)?;
                let ends = self.destinations(w, lane, [to, barrier], *mask)?;
                let piece = |cta| Piece { from: Some(End::Global(from)), to: End::Shared(cta, at), bytes };
                let made =
                    |(cta, barrier)| (Group::Barrier, vec![piece(cta)], Some((cta, barrier, bytes as u32)));
                Ok(ends.into_iter().map(made).collect())
            }
            Bulk::Store { to, from, bytes } => {
                let (to, bytes) = (value(self, *to), value(self, *bytes) as usize);
                let (cta, at) = self.shared_target(w, from, lane)?;
                multiples(&[to, at, bytes as u64], 16)?;
                let piece = Piece { from: Some(End::Shared(cta, at)), to: End::Global(to), bytes };
                Ok(vec![(Group::Bulk(self.warps[w].bulk.open), vec![piece], None)])
            }
            Bulk::Send { to, from, bytes, barrier } => {
                let bytes = value(self, *bytes) as usize;
                let (source, at) = self.shared_target(w, from, lane)?;
                let (cta, to_at) = self.shared_target(w, to, lane)?;
                multiples(&[at, to_at, bytes as u64], 16)?;
                let (barrier_cta, offset) = self.shared_target(w, barrier, lane)?;
                let piece = Piece { from: Some(End::Shared(source, at)), to: End::Shared(cta, to_at), bytes };
                Ok(vec![(Group::Barrier, vec![piece], Some((barrier_cta, offset, bytes as u32)))])
            }
        }
    }

    /// CTAs that receive a load, each with the offset of its barrier.
    pub(super) fn destinations(
        &mut self,
        w: usize,
        lane: usize,
        [to, barrier]: [&Address; 2],
        mask: Option<Reg>,
    ) -> Result<Vec<(usize, u64)>, FaultKind> {
        let (cta, _) = self.shared_target(w, to, lane)?;
        let (barrier_cta, offset) = self.shared_target(w, barrier, lane)?;
        if cta != barrier_cta {
            return Err(undefined("a copy into one CTA completes on a barrier of another"));
        }
        let bits = mask.map_or(1 << cta, |row| self.warps[w].rows[row as usize][lane] as u16);
        let receivers: Vec<usize> = (0..16).filter(|i| bits >> i & 1 == 1).collect();
        if receivers.iter().any(|cta| *cta >= self.ctas.len()) {
            return Err(undefined(format!("multicast to {bits:#x} in a cluster of {}", self.ctas.len())));
        }
        for cta in &receivers {
            self.barrier(*cta, offset)?;
        }
        Ok(receivers.into_iter().map(|cta| (cta, offset)).collect())
    }

    pub(super) fn shared_target(
        &self,
        w: usize,
        at: &Address,
        lane: usize,
    ) -> Result<(usize, u64), FaultKind> {
        match self.locate(w, at.space, self.address(w, at, lane))? {
            Target::Shared { cta, offset } => Ok((cta, offset)),
            _ => Err(undefined("an address in shared memory is needed")),
        }
    }

    fn barrier(&mut self, cta: usize, offset: u64) -> Result<&mut Barrier, FaultKind> {
        let missing = || FaultKind::Mbarrier { offset, reason: "there is no barrier object".into() };
        self.ctas[cta].shared.barriers.get_mut(&offset).ok_or_else(missing)
    }

    pub(super) fn mbarrier(
        &mut self,
        w: usize,
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
            let transfer = Transfer { warp: w, pc: 0, lane, group, pieces, barrier: None, arrivals, stamp };
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

    /// One lane's operation on a barrier object; false where a wait failed.
    fn barrier_step(
        &mut self,
        w: usize,
        lane: usize,
        (cta, offset): (usize, u64),
        op: &Mbarrier,
    ) -> Result<bool, FaultKind> {
        let agents = self.warps.len() * 2;
        let misuse = |reason: String| FaultKind::Mbarrier { offset, reason };
        let warp = &mut self.warps[w];
        let stamp = warp.stamp();
        let value = |rows: &[crate::program::Row], row: Reg| rows[row as usize][lane];
        let shared = &mut self.ctas[cta].shared;
        let who = Agent { stamp, knowledge: &warp.knowledge, asynchronous: false, access: "mbarrier" };
        if let Mbarrier::Init { count } = op {
            if cta != warp.cta || shared.barriers.contains_key(&offset) {
                return Err(misuse("initialised while it is a valid object, or in another CTA".into()));
            }
            shared.write(offset, 8, &who)?;
            shared.mark_barrier(offset, true);
            let barrier = Barrier::new(value(&warp.rows, *count) as u32, agents).map_err(misuse)?;
            shared.barriers.insert(offset, barrier);
            return Ok(true);
        }
        shared.check_barrier(offset, &who)?;
        let Some(barrier) = shared.barriers.get_mut(&offset) else {
            return Err(misuse("there is no barrier object".into()));
        };
        match op {
            Mbarrier::Init { .. } => {}
            Mbarrier::Invalidate => {
                shared.barriers.remove(&offset);
                shared.mark_barrier(offset, false);
            }
            Mbarrier::Arrive { state, count, expect, drop } => {
                barrier.knowledge.join(&warp.knowledge);
                let phase = barrier.phase;
                if let Some(bytes) = expect {
                    barrier.expect_bytes(value(&warp.rows, *bytes) as u32).map_err(misuse)?;
                }
                barrier.arrive(value(&warp.rows, *count) as u32, *drop).map_err(misuse)?;
                if let Some(row) = state {
                    warp.rows[*row as usize][lane] = phase;
                }
            }
            Mbarrier::ExpectTx { bytes } => {
                barrier.expect_bytes(value(&warp.rows, *bytes) as u32).map_err(misuse)?;
            }
            Mbarrier::CompleteTx { bytes } => {
                barrier.complete_bytes(value(&warp.rows, *bytes) as u32).map_err(misuse)?;
            }
            Mbarrier::ArriveOnCopies { increments } => {
                if *increments {
                    barrier.expect_arrivals(1).map_err(misuse)?;
                }
            }
            Mbarrier::Wait { done, phase, parity } => {
                if cta != warp.cta {
                    return Err(misuse("waited for from another CTA".into()));
                }
                let asked = value(&warp.rows, *phase);
                let over = if *parity { barrier.phase & 1 != asked & 1 } else { barrier.phase > asked };
                warp.rows[*done as usize][lane] = over.into();
                if over {
                    warp.knowledge.join(&barrier.knowledge);
                }
                return Ok(over);
            }
        }
        Ok(true)
    }
}

/// Group, pieces, and barrier of a copy to issue.
pub(super) type Made = (Group, Vec<Piece>, Option<(usize, u64, u32)>);

/// Learns of the operations whose groups are below the limit.
fn observe(groups: &mut Groups, seen: &mut crate::clock::Clock, limit: u64) {
    while let Some((_, stamp)) = groups.stamps.front().filter(|(group, _)| *group < limit) {
        seen.raise(*stamp);
        groups.stamps.pop_front();
    }
}

pub(super) fn multiples(values: &[u64], align: u64) -> Result<(), FaultKind> {
    values.iter().try_for_each(|value| aligned(*value, align, "bulk copy"))
}
