//! Operands of `wgmma` in shared memory: where a matrix descriptor puts each 16-byte chunk.

use crate::fault::{FaultKind, undefined};
use crate::number::values;
use crate::op::Element;
use crate::tensor_map::Swizzle;

/// Bytes of K that one instruction consumes.
pub(crate) const K_BYTES: usize = 32;
/// Bytes that are always contiguous.
pub(crate) const CHUNK: usize = 16;
/// Rows (or columns) of a core matrix.
const CORE: u64 = 8;

/// A matrix of `rows` rows (or columns, for B) of 32 bytes of K.
#[derive(Debug, Clone)]
pub(crate) struct Tile {
    /// Offsets in shared memory. K-major: two chunks for each row. MN-major: for each k, chunks of eight rows.
    pub chunks: Vec<u64>,
    pub rows: usize,
    pub element: Element,
    pub transpose: bool,
}

/// A matrix descriptor, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    swizzle: Swizzle,
}

impl Descriptor {
    /// Bits 0–13 start address, 16–29 leading offset, 32–45 stride offset (all in units of 16 bytes), 49–51 base
    /// offset, 62–63 swizzle.
    fn decode(bits: u64) -> Result<Self, FaultKind> {
        let field = |at: u32| (bits >> at & 0x3fff) << 4;
        if bits >> 49 & 7 != 0 {
            return Err(undefined("a matrix descriptor with a base offset is not supported"));
        }
        let swizzle = [Swizzle::None, Swizzle::B128, Swizzle::B64, Swizzle::B32][(bits >> 62) as usize];
        Ok(Self { start: field(0), leading: field(16), stride: field(32), swizzle })
    }

    /// Bytes of a row of a swizzled tile.
    fn width(self) -> u64 {
        match self.swizzle {
            Swizzle::None => 16,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        }
    }

    /// Offset of chunk `c` of K (16 bytes) of a row, where K is contiguous.
    fn k_major(self, row: u64, c: u64) -> u64 {
        let group = row / CORE * self.stride + row % CORE * self.width();
        let along = if self.swizzle == Swizzle::None { c * self.leading } else { c * CHUNK as u64 };
        self.swizzle.apply(self.start + group + along)
    }

    /// Offset of chunk `c` of the rows (eight elements) of one k, where rows are contiguous.
    fn mn_major(self, k: u64, c: u64) -> u64 {
        let chunks = self.width() / CHUNK as u64;
        let (across, along) = if self.swizzle == Swizzle::None {
            (k / CORE * self.leading, c * self.stride)
        } else {
            (k / CORE * self.stride, c / chunks * self.leading + c % chunks * CHUNK as u64)
        };
        self.swizzle.apply(self.start + across + k % CORE * self.width() + along)
    }
}

impl Tile {
    /// Rows `first` and up of the matrix that a descriptor describes.
    pub fn new(
        descriptor: u64,
        (first, rows): (usize, usize),
        element: Element,
        transpose: bool,
    ) -> Result<Self, FaultKind> {
        let d = Descriptor::decode(descriptor)?;
        let mut chunks = Vec::with_capacity(rows * K_BYTES / CHUNK);
        if transpose {
            let first = first as u64 / CORE;
            for k in 0..(K_BYTES / element.bytes()) as u64 {
                chunks.extend((first..first + rows as u64 / CORE).map(|c| d.mn_major(k, c)));
            }
        } else {
            for row in first as u64..(first + rows) as u64 {
                chunks.extend([d.k_major(row, 0), d.k_major(row, 1)]);
            }
        }
        Ok(Self { chunks, rows, element, transpose })
    }

    /// Values, row by row: rows × k.
    pub fn rows(&self, shared: &[u8]) -> Vec<f64> {
        self.values(shared, !self.transpose)
    }

    /// Values, all rows of one k after the other: k × rows.
    pub fn columns(&self, shared: &[u8]) -> Vec<f64> {
        self.values(shared, self.transpose)
    }

    /// Values as they lie in memory, or transposed.
    fn values(&self, shared: &[u8], as_is: bool) -> Vec<f64> {
        let k = K_BYTES / self.element.bytes();
        let mut bytes = Vec::with_capacity(self.chunks.len() * CHUNK);
        for chunk in &self.chunks {
            bytes.extend_from_slice(&shared[*chunk as usize..*chunk as usize + CHUNK]);
        }
        let mut found = Vec::with_capacity(self.rows * k);
        values(&bytes, self.element, &mut found);
        if as_is {
            return found;
        }
        let (outer, inner) = if self.transpose { (k, self.rows) } else { (self.rows, k) };
        let mut turned = vec![0.0; found.len()];
        for (i, run) in found.chunks_exact(inner).enumerate() {
            run.iter().enumerate().for_each(|(j, value)| turned[j * outer + i] = *value);
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(start: u64, leading: u64, stride: u64, swizzle: u64) -> u64 {
        start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | swizzle << 62
    }

    #[test]
    fn k_major_without_swizzle_is_made_of_core_matrices() {
        let tile = Tile::new(descriptor(2048, 128, 256, 0), (0, 16), Element::E4m3, false).unwrap();
        // Row 9 is row 1 of the second group of eight.
        assert_eq!(tile.chunks[2..4], [2048 + 16, 2048 + 16 + 128]);
        assert_eq!(tile.chunks[18..20], [2048 + 256 + 16, 2048 + 256 + 16 + 128]);
    }

    #[test]
    fn k_major_with_128_byte_rows_follows_the_drawn_swizzle() {
        // The second 32 bytes of K: chunks 2 and 3 of each row.
        let tile = Tile::new(descriptor(4096 + 32, 16, 1024, 1), (0, 16), Element::E4m3, false).unwrap();
        let chunk = |row: usize| (tile.chunks[2 * row] - 4096) / 16;
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6, 7].map(chunk),
            [2, 8 + 3, 16, 24 + 1, 32 + 6, 40 + 7, 48 + 4, 56 + 5]
        );
        assert_eq!(chunk(8), 64 + 2);
    }

    #[test]
    fn mn_major_with_128_byte_rows_has_64_elements_in_a_row() {
        // 128 columns: two blocks of 64 (leading offset), K in groups of eight rows (stride offset).
        let tile = Tile::new(descriptor(8192, 2048, 1024, 1), (0, 128), Element::Bf16, true).unwrap();
        let at = |k: usize, c: usize| tile.chunks[k * 16 + c];
        assert_eq!(at(0, 0), 8192);
        assert_eq!(at(1, 0), 8192 + 128 + 16);
        assert_eq!(at(8, 3), 8192 + 1024 + 48);
        assert_eq!(at(0, 8), 8192 + 2048);
    }
}
