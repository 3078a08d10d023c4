//! What bulk and per-thread copies move, from the operands of a lane.

use super::Machine;
use super::access::{Target, aligned};
use super::transfer::{End, Group, Made, Piece};
use crate::fault::{FaultKind, undefined};
use crate::op::{Address, Bulk};
use crate::program::Reg;

impl Machine<'_> {
    pub(super) fn make_copy(
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

    pub(super) fn make_bulk(&mut self, w: usize, lane: usize, bulk: &Bulk) -> Result<Vec<Made>, FaultKind> {
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
            if !self.barrier(*cta, offset)?.visible {
                let reason = "a copy completes on it, and no fence made its initialisation visible".into();
                return Err(FaultKind::Mbarrier { offset, reason });
            }
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
}

pub(super) fn multiples(values: &[u64], align: u64) -> Result<(), FaultKind> {
    values.iter().try_for_each(|value| aligned(*value, align, "bulk copy"))
}
