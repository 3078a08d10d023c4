//! `wgmma.mma_async`: each warp of a warpgroup computes its own sixteen rows of the tile.

use std::collections::VecDeque;

use super::Machine;
use super::matrix::gather_a;
use super::step::{Next, mask_of};
use super::warp::{Left, Multiply, Pending, Step, Warp};
use crate::clock::Stamp;
use crate::fault::{FaultKind, Trouble, undefined};
use crate::launch::Timing;
use crate::op::{MatrixA, Op};
use crate::product::multiply_add;
use crate::program::{Inst, Reg};
use crate::shared::Agent;
use crate::tile::{CHUNK, K_BYTES, Tile};

/// Rows of a tile that one warp computes.
const ROWS: usize = 16;

impl Machine<'_> {
    /// Hazards of registers in flight: refuses them, except that a move of an accumulator joins the queue (true).
    pub(super) fn defer_or_refuse(&mut self, w: usize, inst: &Inst, mask: u32) -> Result<bool, Trouble> {
        if matches!(inst.op, Op::Wgmma(_)) {
            return Ok(false);
        }
        let code = &self.world.kernel.code;
        let warp = &mut self.warps[w];
        let matrix = &mut warp.matrix;
        let copied = match inst.op {
            Op::Lanes { s, copies: true, .. } => Some(s[0]),
            _ => None,
        };
        if matrix.queue.is_empty() {
            matrix.note_writes(&inst.defs, copied);
            return Ok(false);
        }
        if inst.defs.iter().any(|d| matrix.writing[*d as usize] > 0 || matrix.reading[*d as usize] > 0) {
            return Err(FaultKind::AccumulatorInFlight("written").into());
        }
        if let (Some(a), [d]) = (copied.filter(|a| matrix.writing[*a as usize] > 0), &*inst.defs) {
            if mask != warp.live {
                return Err(FaultKind::AccumulatorInFlight("read").into());
            }
            matrix.writing[*d as usize] += 1;
            matrix.unfenced[*d as usize] = false;
            // It is done when what writes its source is, however many groups there are behind that.
            let writes = |e: &&Pending| match &e.step {
                Step::Move { d, .. } => *d == a,
                Step::Multiply(multiply) => match &code[multiply.pc as usize].op {
                    Op::Wgmma(wgmma) => wgmma.d.contains(&a),
                    _ => false,
                },
            };
            let group = matrix.queue.iter().rev().find(writes).map_or(matrix.open, |e| e.group);
            matrix.queue.push_back(Pending { group, done: false, step: Step::Move { d: *d, a } });
            self.multiply_early(w);
            return Ok(true);
        }
        if inst.uses.iter().any(|u| matrix.writing[*u as usize] > 0) {
            return Err(FaultKind::AccumulatorInFlight("read").into());
        }
        matrix.note_writes(&inst.defs, copied);
        Ok(false)
    }

    pub(super) fn issue_wgmma(&mut self, w: usize, pc: u32) -> Result<(), Trouble> {
        let Op::Wgmma(wgmma) = &self.world.kernel.code[pc as usize].op else { return Ok(()) };
        let warp = &mut self.warps[w];
        if warp.live != u32::MAX {
            return Err(undefined("wgmma needs all lanes of the warp").into());
        }
        let a_rows: &[Reg] = match &wgmma.a {
            MatrixA::Registers(rows) => rows,
            MatrixA::Descriptor(_) => &[],
        };
        let matrix = &mut warp.matrix;
        if !matrix.fenced || wgmma.d.iter().chain(a_rows).any(|r| matrix.unfenced[*r as usize]) {
            return Err(FaultKind::MissingWgmmaFence.into());
        }
        if a_rows.iter().any(|r| matrix.writing[*r as usize] > 0) {
            return Err(FaultKind::AccumulatorInFlight("read").into());
        }
        wgmma.d.iter().for_each(|r| matrix.writing[*r as usize] += 1);
        for r in a_rows {
            matrix.reading[*r as usize] += 1;
        }
        let scale_d = mask_of(&warp.rows[wgmma.scale_d as usize]) & 1 == 1;
        let left = match wgmma.a {
            MatrixA::Registers(rows) => Left::Rows(Box::new(rows.map(|r| warp.rows[r as usize]))),
            MatrixA::Descriptor(row) => {
                let span = (ROWS * (warp.index as usize % 4), ROWS);
                Left::Tile(Tile::new(warp.rows[row as usize][0], span, wgmma.element[0], wgmma.transpose[0])?)
            }
        };
        let right =
            Tile::new(warp.rows[wgmma.b as usize][0], (0, wgmma.n), wgmma.element[1], wgmma.transpose[1])?;
        let stamp = warp.issue();
        self.mark_tiles(w, &left, &right, stamp)?;
        self.stats.tensor_macs += (ROWS * wgmma.n * K_BYTES / wgmma.element[0].bytes()) as u64;
        let matrix = &mut self.warps[w].matrix;
        let step = Step::Multiply(Box::new(Multiply { pc, scale_d, left, right }));
        matrix.queue.push_back(Pending { group: matrix.open, done: false, step });
        matrix.stamps.push((matrix.open, stamp));
        self.multiply_early(w);
        Ok(())
    }

    /// Checks what the instruction reads, and marks it as in flight.
    fn mark_tiles(&mut self, w: usize, left: &Left, right: &Tile, stamp: Stamp) -> Result<(), FaultKind> {
        let warp = &self.warps[w];
        let who = Agent { stamp, knowledge: &warp.knowledge, asynchronous: true, access: "wgmma" };
        let shared = &mut self.ctas[warp.cta].shared;
        for chunk in left.chunks().iter().chain(&right.chunks) {
            shared.start_read(*chunk, CHUNK, &who)?;
            self.stats.shared_read += CHUNK as u64;
        }
        Ok(())
    }

    /// Completes the groups that may no longer be pending. An instruction is one operation of the whole warpgroup, so
    /// the wait is also one for the other warps' parts of it, which have to be issued by then.
    pub(super) fn wait_wgmma(&mut self, w: usize, pending: u32) -> Next {
        let warp = &self.warps[w];
        let limit = warp.matrix.open.saturating_sub(pending.into());
        let cta = &self.ctas[warp.cta];
        let first = cta.first_warp + warp.index as usize / 4 * 4;
        let warpgroup = first..(first + 4).min(cta.first_warp + cta.warps);
        let behind = |other: &Warp| other.live != 0 && other.matrix.open < limit;
        if self.warps[warpgroup.clone()].iter().any(behind) {
            return Next::Retry;
        }
        for other in warpgroup {
            self.multiply_groups(other, limit);
            let stamps = &self.warps[other].matrix.stamps;
            let past = stamps.partition_point(|(group, _)| *group < limit);
            if let Some((_, stamp)) = stamps[..past].last().copied() {
                self.warps[w].knowledge.seen.raise(stamp);
            }
        }
        let queue = std::mem::take(&mut self.warps[w].matrix.queue);
        let (past, pending): (VecDeque<Pending>, _) =
            queue.into_iter().partition(|entry| entry.group < limit);
        self.warps[w].matrix.queue = pending;
        for entry in &past {
            self.retire(w, &entry.step);
        }
        self.progress += 1;
        Next::Follow
    }

    fn multiply_early(&mut self, w: usize) {
        if self.world.options.timing == Timing::Early {
            self.multiply_groups(w, u64::MAX);
        }
    }

    /// Lets the groups below the limit take effect, in order.
    fn multiply_groups(&mut self, w: usize, limit: u64) {
        let mut queue = std::mem::take(&mut self.warps[w].matrix.queue);
        for entry in queue.iter_mut().filter(|e| e.group < limit && !e.done) {
            entry.done = true;
            match &entry.step {
                Step::Move { d, a } => {
                    let rows = &mut self.warps[w].rows;
                    rows[*d as usize] = rows[*a as usize];
                }
                Step::Multiply(multiply) => self.multiply(w, multiply),
            }
        }
        self.warps[w].matrix.queue = queue;
    }

    /// Gives the registers of an entry free.
    fn retire(&mut self, w: usize, step: &Step) {
        let matrix = &mut self.warps[w].matrix;
        let multiply = match step {
            Step::Move { d, .. } => {
                matrix.writing[*d as usize] -= 1;
                return;
            }
            Step::Multiply(multiply) => multiply,
        };
        let Op::Wgmma(wgmma) = &self.world.kernel.code[multiply.pc as usize].op else { return };
        wgmma.d.iter().for_each(|r| matrix.writing[*r as usize] -= 1);
        if let MatrixA::Registers(rows) = &wgmma.a {
            for r in rows {
                matrix.reading[*r as usize] -= 1;
            }
        }
    }

    fn multiply(&mut self, w: usize, Multiply { pc, scale_d, left, right }: &Multiply) {
        let Op::Wgmma(wgmma) = &self.world.kernel.code[*pc as usize].op else { return };
        let warp = &mut self.warps[w];
        let k = K_BYTES / wgmma.element[0].bytes();
        let shared = &mut self.ctas[warp.cta].shared;
        left.chunks().iter().chain(&right.chunks).for_each(|chunk| shared.mark(*chunk, CHUNK, false, false));
        let shared = &shared.data;
        let mut left = match left {
            Left::Rows(rows) => gather_a(rows.iter(), wgmma.element[0], k),
            Left::Tile(tile) => tile.rows(shared),
        };
        if wgmma.negate[0] != wgmma.negate[1] {
            for x in &mut left {
                *x = -*x;
            }
        }
        let mut sums = vec![0.0; ROWS * wgmma.n];
        let place = |i: usize, lane: usize| {
            let (m, n) = (lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2);
            m * wgmma.n + n
        };
        if *scale_d {
            for (i, register) in wgmma.d.iter().enumerate() {
                for (lane, value) in warp.rows[*register as usize].iter().enumerate() {
                    sums[place(i, lane)] = f32::from_bits(*value as u32);
                }
            }
        }
        let mode = self.world.options.accumulator.of(wgmma.element[0]);
        let sums = multiply_add(&left, &right.columns(shared), k, &sums, mode);
        for (i, register) in wgmma.d.iter().enumerate() {
            for (lane, value) in warp.rows[*register as usize].iter_mut().enumerate() {
                *value = sums[place(i, lane)].to_bits().into();
            }
        }
    }
}
