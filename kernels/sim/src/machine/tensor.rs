//! Copies of boxes of tensors: which bytes go where.

use super::Machine;
use super::access::Target;
use super::transfer::{End, Group, Made, Piece};
use crate::fault::{FaultKind, undefined};
use crate::in_flight::Touch;
use crate::op::{Bulk, Space};
use crate::program::Reg;
use crate::tensor_map::{Swizzle, TensorMap};

/// Bytes that a swizzle moves as one.
const CHUNK: usize = 16;

impl Machine<'_> {
    pub(super) fn make_tensor(&mut self, w: usize, lane: usize, bulk: &Bulk) -> Result<Vec<Made>, FaultKind> {
        match bulk {
            Bulk::TensorLoad { to, map, at, barrier, mask } => {
                let (map, corner) = self.tensor(w, lane, *map, at)?;
                let (_, offset) = self.shared_target(w, to, lane)?;
                check_alignment(offset, &map)?;
                let ends = self.destinations(w, lane, [to, barrier], *mask)?;
                let bytes = map.block_bytes() as u32;
                let places = places(&map, corner, offset);
                let made = |(cta, barrier)| {
                    let piece = |p: &Place| Piece {
                        from: p.global.map(End::Global),
                        to: End::Shared(cta, p.shared),
                        bytes: p.bytes,
                    };
                    (Group::Barrier, places.iter().map(piece).collect(), Some((cta, barrier, bytes)))
                };
                Ok(ends.into_iter().map(made).collect())
            }
            Bulk::TensorStore { map, at, from } => {
                let (map, corner) = self.tensor(w, lane, *map, at)?;
                let (cta, offset) = self.shared_target(w, from, lane)?;
                check_alignment(offset, &map)?;
                let piece = |p: Place| {
                    let to = End::Global(p.global?);
                    Some(Piece { from: Some(End::Shared(cta, p.shared)), to, bytes: p.bytes })
                };
                let pieces = places(&map, corner, offset).into_iter().filter_map(piece).collect();
                Ok(vec![(Group::Bulk(self.warps[w].bulk.open), pieces, None)])
            }
            _ => Ok(vec![]),
        }
    }

    fn tensor(
        &self,
        w: usize,
        lane: usize,
        map: Reg,
        at: &[Reg],
    ) -> Result<(TensorMap, [i64; 5]), FaultKind> {
        let rows = &self.warps[w].rows;
        let address = rows[map as usize][lane];
        super::access::aligned(address, 64, "tensor map")?;
        let bytes = match self.locate(w, Space::Generic, address)? {
            Target::Parameter(offset) => {
                self.world.launch.params.get(offset as usize..).and_then(|p| p.get(..128))
            }
            Target::Global(address) => {
                let waited = self.warps[w].waited >> lane & 1 == 1;
                let access = "a read of a tensor map";
                self.memory.check_order(&Touch { address, bytes: 128, writes: false, waited, access })?;
                Some(self.memory.read(address, 128)?)
            }
            _ => None,
        };
        let bytes = bytes.and_then(|b| b.try_into().ok());
        let bytes = bytes.ok_or_else(|| undefined("a tensor map lies in parameters or global memory"))?;
        let map = TensorMap::decode(bytes).map_err(|e| undefined(e.to_string()))?;
        if map.rank != at.len() {
            return Err(undefined(format!("{} coordinates for a tensor of rank {}", at.len(), map.rank)));
        }
        let mut corner = [0; 5];
        at.iter().zip(&mut corner).for_each(|(row, c)| *c = i64::from(rows[*row as usize][lane] as i32));
        Ok((map, corner))
    }
}

/// Bytes of a box that are contiguous in both memories; outside the tensor there is no global address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    global: Option<u64>,
    shared: u64,
    bytes: usize,
}

fn check_alignment(offset: u64, map: &TensorMap) -> Result<(), FaultKind> {
    let align = if map.swizzle == Swizzle::None { 16 } else { 128 };
    super::request::multiples(&[offset], align)
}

/// Every chunk of the box whose lowest corner has these coordinates.
fn places(map: &TensorMap, corner: [i64; 5], offset: u64) -> Vec<Place> {
    let row_bytes = map.block[0] as usize * map.element_bytes;
    let rows: usize = map.block[1..map.rank].iter().map(|b| *b as usize).product();
    let mut found = vec![];
    for row in 0..rows {
        let base = row_address(map, corner, row);
        for start in (0..row_bytes).step_by(CHUNK) {
            let shared = map.swizzle.apply(offset + (row * row_bytes + start) as u64);
            chunk(map, corner[0], base, start, shared, &mut found);
        }
    }
    found
}

/// Global address of the row's element 0 (of the tensor, not of the box), unless the row is outside.
fn row_address(map: &TensorMap, corner: [i64; 5], mut row: usize) -> Option<u64> {
    let mut address = map.address;
    for (dim, low) in corner.iter().enumerate().take(map.rank).skip(1) {
        let at = low + (row % map.block[dim] as usize) as i64;
        row /= map.block[dim] as usize;
        if at < 0 || at >= map.dims[dim] as i64 {
            return None;
        }
        address += at as u64 * map.strides[dim - 1];
    }
    Some(address)
}

fn chunk(map: &TensorMap, first: i64, base: Option<u64>, start: usize, shared: u64, found: &mut Vec<Place>) {
    let size = map.element_bytes as i64;
    let begin = first * size + start as i64;
    let end = begin + CHUNK as i64;
    // The part of the chunk that lies within the tensor.
    let (low, high) = (begin.clamp(0, end.max(0)), end.min(map.dims[0] as i64 * size));
    let inside = base.filter(|_| low < high);
    let (low, high) = if inside.is_some() { (low, high) } else { (end, end) };
    let mut push = |from: i64, to: i64, global: Option<u64>| {
        if to > from {
            found.push(Place { global, shared: shared + (from - begin) as u64, bytes: (to - from) as usize });
        }
    };
    push(begin, low, None);
    push(low, high, inside.map(|base| base + low as u64));
    push(high, end, None);
}
