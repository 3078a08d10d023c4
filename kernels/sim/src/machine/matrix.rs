//! `ldmatrix`, `stmatrix` and `mma.sync`: matrices spread over the registers of a warp.

use super::Machine;
use super::access::aligned;
use crate::fault::{AtLane, Trouble};
use crate::number::values;
use crate::op::{Address, Element, Op};
use crate::product::multiply_add;
use crate::program::{LANES, Reg, Row};

impl Machine<'_> {
    pub(super) fn matrix(&mut self, w: usize, op: &Op) -> Result<(), Trouble> {
        match op {
            Op::LoadMatrix { at, d, transpose } => {
                let tiles = self.load_tiles(w, at, d.len())?;
                for (tile, row) in tiles.iter().zip(d) {
                    self.warps[w].rows[*row as usize] =
                        std::array::from_fn(|lane| pair(tile, lane, *transpose));
                }
            }
            Op::StoreMatrix { at, s, transpose } => self.store_tiles(w, at, s, *transpose)?,
            Op::Mma { element, k, d, a, b, c } => {
                let rows = &mut self.warps[w].rows;
                let left = gather_a(a.iter().map(|r| &rows[*r as usize]), element[0], *k);
                let right = gather_b(b.iter().map(|r| &rows[*r as usize]), element[1], *k);
                let place = |i: usize, lane: usize| (lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2;
                let mut old = [0.0; 16 * 8];
                for (i, register) in c.iter().enumerate() {
                    for (lane, value) in rows[*register as usize].iter().enumerate() {
                        old[place(i, lane)] = f32::from_bits(*value as u32);
                    }
                }
                let mode = self.world.options.accumulator.of(element[0]);
                let sums = multiply_add(&left, &right, *k, &old, mode);
                for (i, register) in d.iter().enumerate() {
                    rows[*register as usize] =
                        std::array::from_fn(|lane| sums[place(i, lane)].to_bits().into());
                }
                self.stats.tensor_macs += (16 * 8 * k) as u64;
            }
            _ => {}
        }
        Ok(())
    }

    /// 8×8 tiles of 16-bit elements: lanes 8·i and up give the addresses of tile i's rows.
    fn load_tiles(&mut self, w: usize, at: &Address, count: usize) -> Result<Vec<[[u16; 8]; 8]>, Trouble> {
        let mut tiles = vec![[[0; 8]; 8]; count];
        for lane in 0..8 * count {
            let mut bytes = [0; 16];
            let address = self.address(w, at, lane);
            aligned(address, 16, "ldmatrix").at_lane(lane)?;
            let target = self.locate(w, at.space, address).at_lane(lane)?;
            self.lane(w, "ldmatrix").fetch(target, lane, &mut bytes).at_lane(lane)?;
            tiles[lane / 8][lane % 8] =
                std::array::from_fn(|i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]));
        }
        Ok(tiles)
    }

    fn store_tiles(&mut self, w: usize, at: &Address, s: &[Reg], transpose: bool) -> Result<(), Trouble> {
        for lane in 0..8 * s.len() {
            let source = &self.warps[w].rows[s[lane / 8] as usize];
            let element = |row: usize, column: usize| {
                let (row, column) = if transpose { (column, row) } else { (row, column) };
                (source[4 * row + column / 2] >> (16 * (column % 2))) as u16
            };
            let bytes: Vec<u8> = (0..8).flat_map(|column| element(lane % 8, column).to_le_bytes()).collect();
            let address = self.address(w, at, lane);
            aligned(address, 16, "stmatrix").at_lane(lane)?;
            let target = self.locate(w, at.space, address).at_lane(lane)?;
            self.lane(w, "stmatrix").put(target, lane, &bytes).at_lane(lane)?;
        }
        self.progress += 1;
        Ok(())
    }
}

/// The two neighbours of a row that a lane holds.
fn pair(tile: &[[u16; 8]; 8], lane: usize, transpose: bool) -> u64 {
    let element = |row: usize, column: usize| if transpose { tile[column][row] } else { tile[row][column] };
    let (row, column) = (lane / 4, 2 * (lane % 4));
    u64::from(element(row, column)) | u64::from(element(row, column + 1)) << 16
}

/// Operand A, 16 × k row by row: register r of a lane holds four bytes of row `lane/4 + 8·(r mod 2)`, from byte
/// `4·(lane mod 4) + 16·(r/2)` on.
pub(super) fn gather_a<'a>(registers: impl Iterator<Item = &'a Row>, element: Element, k: usize) -> Vec<f64> {
    let width = k * element.bytes();
    let mut bytes = vec![0; 16 * width];
    for (r, register) in registers.enumerate() {
        for (lane, value) in register.iter().enumerate() {
            let at = (lane / 4 + 8 * (r % 2)) * width + 4 * (lane % 4) + 16 * (r / 2);
            bytes[at..at + 4].copy_from_slice(&(*value as u32).to_le_bytes());
        }
    }
    let mut found = Vec::with_capacity(16 * k);
    values(&bytes, element, &mut found);
    found
}

/// Operand B, k × 8: register r of a lane holds four bytes of column `lane/4`, from byte `4·(lane mod 4) + 16·r` on.
fn gather_b<'a>(registers: impl Iterator<Item = &'a Row>, element: Element, k: usize) -> Vec<f64> {
    let width = k * element.bytes();
    let mut bytes = vec![0; (LANES / 4) * width];
    for (r, register) in registers.enumerate() {
        for (lane, value) in register.iter().enumerate() {
            let at = (lane / 4) * width + 4 * (lane % 4) + 16 * r;
            bytes[at..at + 4].copy_from_slice(&(*value as u32).to_le_bytes());
        }
    }
    let mut found = Vec::with_capacity(8 * k);
    values(&bytes, element, &mut found);
    (0..8 * k).map(|i| found[i % 8 * k + i / 8]).collect()
}
