//! Asynchronous copies and barrier objects.

use std::borrow::Cow;

use super::Machine;
use super::warp::{Groups, lanes};
use crate::clock::Stamp;
use crate::fault::{AtLane, Fault, FaultKind, Trouble};
use crate::in_flight::Touch;
use crate::launch::Timing;
use crate::mbarrier::Barrier;
use crate::memory::Memory;
use crate::op::Op;
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
                let stamp = self.stamp_copy(w, barrier);
                let transfer = Transfer { warp: w, pc, lane, group, pieces, barrier, arrivals: None, stamp };
                self.issue(transfer).at_lane(lane)?;
            }
        }
        self.progress += 1;
        Ok(())
    }

    /// The stamp of a new copy: one of its barrier's, or of the warp's where none counts its bytes.
    fn stamp_copy(&mut self, w: usize, barrier: Option<(usize, u64, u32)>) -> Stamp {
        let Some((cta, offset, _)) = barrier else { return self.warps[w].issue() };
        let next = (2 * self.warps.len() + self.counted.len()) as u16;
        let last = self.counted.entry((cta, offset)).or_insert(Stamp { agent: next, time: 0 });
        last.time += 1;
        *last
    }

    /// Checks what the operation touches, marks it as in flight, and performs it where it is early.
    pub(super) fn issue(&mut self, transfer: Transfer) -> Result<(), FaultKind> {
        let generic = matches!(transfer.group, Group::Copy(_));
        let access = if generic { "cp.async" } else { "a bulk copy" };
        let warp = &mut self.warps[transfer.warp];
        let who = Agent { stamp: transfer.stamp, knowledge: &warp.knowledge, asynchronous: !generic, access };
        let waited = warp.waited >> transfer.lane & 1 == 1;
        let check = |memory: &Memory, address: u64, bytes: usize, writes: bool| {
            memory.check(address, bytes, if writes { "write" } else { "read" })?;
            memory.check_order(&Touch { address, bytes, writes, waited, access })
        };
        for piece in &transfer.pieces {
            match piece.from {
                Some(End::Global(address)) => check(&self.memory, address, piece.bytes, false)?,
                Some(End::Shared(cta, at)) => self.ctas[cta].shared.start_read(at, piece.bytes, &who)?,
                None => {}
            }
            match piece.to {
                End::Global(address) => check(&self.memory, address, piece.bytes, true)?,
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

    fn perform_piece(&mut self, piece: &Piece) -> Result<(), FaultKind> {
        let span = |at: u64| at as usize..at as usize + piece.bytes;
        if let Some(End::Shared(cta, at)) = piece.from {
            self.stats.shared_read += piece.bytes as u64;
            self.ctas[cta].shared.mark(at, piece.bytes, false, false);
        }
        let data = match piece.from {
            None => Cow::from(vec![0; piece.bytes]),
            Some(End::Global(address)) => {
                self.stats.global_read += piece.bytes as u64;
                Cow::from(self.memory.read(address, piece.bytes)?)
            }
            Some(End::Shared(cta, at)) => Cow::from(self.ctas[cta].shared.data[span(at)].to_vec()),
        };
        match piece.to {
            End::Global(address) => {
                self.stats.global_written += piece.bytes as u64;
                let data = data.into_owned();
                self.memory.store(address, &data)
            }
            End::Shared(cta, at) => {
                self.stats.shared_written += piece.bytes as u64;
                let shared = &mut self.ctas[cta].shared;
                shared.mark(at, piece.bytes, true, false);
                shared.data[span(at)].copy_from_slice(&data);
                Ok(())
            }
        }
    }

    fn perform(&mut self, transfer: &Transfer) -> Result<(), FaultKind> {
        for piece in &transfer.pieces {
            self.perform_piece(piece)?;
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

    pub(super) fn barrier(&mut self, cta: usize, offset: u64) -> Result<&mut Barrier, FaultKind> {
        let missing = || FaultKind::Mbarrier { offset, reason: "there is no barrier object".into() };
        self.ctas[cta].shared.barriers.get_mut(&offset).ok_or_else(missing)
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
