//! Tensor maps: the 128 bytes that tell `cp.async.bulk.tensor` what a tensor and its boxes look like.
//!
//! The driver's encoding is not public; this one is the simulator's own.

use thiserror::Error;

/// How a box is spread over shared memory: 16-byte chunks of a row are permuted by the row's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swizzle {
    /// Rows follow each other as they are.
    #[default]
    None,
    /// Rows of 32 bytes.
    B32,
    /// Rows of 64 bytes.
    B64,
    /// Rows of 128 bytes.
    B128,
}

impl Swizzle {
    const ALL: [Self; 4] = [Self::None, Self::B32, Self::B64, Self::B128];

    /// Where a byte goes: address bits 4 and up are exchanged with bits 7 and up of the same address.
    pub(crate) fn apply(self, address: u64) -> u64 {
        let mask = [0, 0x10, 0x30, 0x70][self as usize];
        address ^ (address >> 3 & mask)
    }

    /// Bytes of a row, if there is a limit.
    fn span(self) -> Option<u64> {
        [None, Some(32), Some(64), Some(128)][self as usize]
    }
}

/// A tensor in global memory and the box that one copy moves; dimension 0 is the innermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TensorMap {
    /// Address of element 0.
    pub address: u64,
    /// Dimensions in use, 1 to 5.
    pub rank: usize,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element_bytes: usize,
    /// Elements of the tensor in each dimension.
    pub dims: [u64; 5],
    /// Bytes between neighbours in dimensions 1 and up.
    pub strides: [u64; 4],
    /// Elements of the box in each dimension, 1 to 256.
    pub block: [u32; 5],
    /// Layout of the box in shared memory.
    pub swizzle: Swizzle,
}

/// Why a tensor map is not one the hardware accepts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("tensor map: {0}")]
pub struct TensorMapError(String);

const MAGIC: u32 = 0x4d41_5031;

impl TensorMap {
    /// The 128 bytes that a kernel takes as its `__grid_constant__` parameter; an error where the driver would
    /// refuse the map.
    pub fn encode(&self) -> Result<[u8; 128], TensorMapError> {
        self.check().map_err(TensorMapError)?;
        let mut bytes = [0; 128];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = self.rank as u8;
        bytes[5] = self.element_bytes as u8;
        bytes[6] = self.swizzle as u8;
        bytes[8..16].copy_from_slice(&self.address.to_le_bytes());
        for i in 0..5 {
            bytes[16 + 8 * i..][..8].copy_from_slice(&self.dims[i].to_le_bytes());
            bytes[88 + 4 * i..][..4].copy_from_slice(&self.block[i].to_le_bytes());
        }
        for i in 0..4 {
            bytes[56 + 8 * i..][..8].copy_from_slice(&self.strides[i].to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads the 128 bytes back.
    pub fn decode(bytes: &[u8; 128]) -> Result<Self, TensorMapError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let swizzle = Swizzle::ALL.get(bytes[6] as usize).filter(|_| word(0) == MAGIC);
        let map = Self {
            address: long(8),
            rank: bytes[4].into(),
            element_bytes: bytes[5].into(),
            dims: std::array::from_fn(|i| long(16 + 8 * i)),
            strides: std::array::from_fn(|i| long(56 + 8 * i)),
            block: std::array::from_fn(|i| word(88 + 4 * i)),
            swizzle: *swizzle.ok_or_else(|| TensorMapError("these bytes are not a tensor map".into()))?,
        };
        map.check().map_err(TensorMapError)?;
        Ok(map)
    }

    /// Bytes of a box in shared memory.
    pub fn block_bytes(&self) -> usize {
        self.block[..self.rank].iter().map(|b| *b as usize).product::<usize>() * self.element_bytes
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=5).contains(&self.rank) || !matches!(self.element_bytes, 1 | 2 | 4 | 8) {
            return Err(format!("rank {} of {}-byte elements", self.rank, self.element_bytes));
        }
        if !self.address.is_multiple_of(16) {
            return Err(format!("address {:#x} is not a multiple of 16", self.address));
        }
        for i in 0..self.rank {
            if self.dims[i] == 0 || self.dims[i] > 1 << 32 {
                return Err(format!("dimension {i} has {} elements", self.dims[i]));
            }
            if self.block[i] == 0 || self.block[i] > 256 {
                return Err(format!(
                    "the box has {} elements in dimension {i}; 1 to 256 are possible",
                    self.block[i]
                ));
            }
        }
        for (i, stride) in self.strides[..self.rank - 1].iter().enumerate() {
            if !stride.is_multiple_of(16) || *stride >= 1 << 40 {
                return Err(format!("a stride of {stride} bytes in dimension {}", i + 1));
            }
        }
        let row = u64::from(self.block[0]) * self.element_bytes as u64;
        if !row.is_multiple_of(16) || self.swizzle.span().is_some_and(|span| row > span) {
            return Err(format!("a box row of {row} bytes with swizzle {:?}", self.swizzle));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunk that column chunk `c` of row `r` goes to in the 128-byte swizzle, as the programming guide draws it.
    const B128: [[u64; 8]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1, 0, 3, 2, 5, 4, 7, 6],
        [2, 3, 0, 1, 6, 7, 4, 5],
        [3, 2, 1, 0, 7, 6, 5, 4],
        [4, 5, 6, 7, 0, 1, 2, 3],
        [5, 4, 7, 6, 1, 0, 3, 2],
        [6, 7, 4, 5, 2, 3, 0, 1],
        [7, 6, 5, 4, 3, 2, 1, 0],
    ];
    /// Rows of 64 bytes: two rows share a line of 128 bytes, and the pattern repeats after eight rows.
    const B64: [[u64; 4]; 8] = [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [1, 0, 3, 2],
        [1, 0, 3, 2],
        [2, 3, 0, 1],
        [2, 3, 0, 1],
        [3, 2, 1, 0],
        [3, 2, 1, 0],
    ];
    /// Rows of 32 bytes: four rows share a line.
    const B32: [[u64; 2]; 8] = [[0, 1], [0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0], [1, 0]];

    fn agrees<const C: usize>(swizzle: Swizzle, table: &[[u64; C]; 8]) {
        for (row, chunks) in table.iter().enumerate() {
            for (chunk, to) in chunks.iter().enumerate() {
                let line = 4096 + (row * C) as u64 * 16;
                assert_eq!(swizzle.apply(line + chunk as u64 * 16 + 5), line + to * 16 + 5);
            }
        }
    }

    #[test]
    fn swizzles_permute_as_drawn() {
        agrees(Swizzle::B128, &B128);
        agrees(Swizzle::B64, &B64);
        agrees(Swizzle::B32, &B32);
        assert_eq!(Swizzle::None.apply(0x1234), 0x1234);
    }

    #[test]
    fn encoding_keeps_everything_and_checks_limits() {
        let map = TensorMap {
            address: 0x1000,
            rank: 2,
            element_bytes: 2,
            dims: [100, 70, 0, 0, 0],
            strides: [208, 0, 0, 0],
            block: [64, 8, 0, 0, 0],
            swizzle: Swizzle::B128,
        };
        assert_eq!(TensorMap::decode(&map.encode().unwrap()).unwrap(), map);
        assert!(TensorMap { block: [128, 8, 0, 0, 0], ..map }.encode().is_err());
        assert!(TensorMap { strides: [200, 0, 0, 0], ..map }.encode().is_err());
        assert!(TensorMap::decode(&[0; 128]).is_err());
    }
}
