//! Random weights, made on a GPU: numbers that weights of their kind could have, so that kernels do what they do with real ones.
//!
//! A block of each kind of part is made once, of a size that whole groups of the storage fill, and copied as often as the part is
//! longer: equal weights at different addresses cost a GPU what different ones do.

use std::collections::BTreeMap;

use fireq_ir::DType;
use fireq_ir::plan::{Buffer, Part, records};

use super::{DeviceBytes, Gpu};
use crate::RuntimeError;

/// The most bytes of a block.
const BLOCK: usize = 16 << 20;

/// What the numbers of a part of a weight look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Any byte: two codes.
    Codes,
    /// Codes of 64 rows and 128 columns, then their scales.
    Records {
        /// Columns of a scale.
        group: usize,
    },
    /// E4M3 codes, none of them NaN.
    E4m3,
    /// Scales of INT4 codes, under another scale or alone.
    Scales(DType, bool),
    /// Scales of rows.
    Outer(DType),
    /// Numbers around 0, as those of embeddings.
    Matrix(DType),
    /// Numbers near 1, as those of norms.
    Vector(DType),
    /// Zeros.
    Zeros,
}

impl Kind {
    /// That of a part of a buffer's parts.
    pub fn of(buffer: &Buffer, part: &Part, parts: &[Part]) -> Self {
        let under = parts.iter().any(|part| part.name == "outer");
        match (part.name, part.dtype) {
            (_, DType::I32) => Kind::Zeros,
            ("records", _) => Kind::Records { group: records::group(&buffer.ty).unwrap_or(records::COLS) },
            (_, DType::I4) => Kind::Codes,
            ("scales", dtype) if buffer.ty.dtype == DType::E4M3 => Kind::Outer(dtype),
            ("scales", dtype) => Kind::Scales(dtype, under),
            ("outer", dtype) => Kind::Outer(dtype),
            (_, DType::E4M3) => Kind::E4m3,
            (_, dtype) if buffer.ty.shape.0.len() == 1 => Kind::Vector(dtype),
            (_, dtype) => Kind::Matrix(dtype),
        }
    }

    /// Bytes that belong together.
    fn unit(self) -> usize {
        match self {
            Kind::Records { group } => records::record_bytes(group),
            _ => 4,
        }
    }

    /// A block of at most `most` bytes.
    fn block(self, most: usize, random: &mut Random) -> Vec<u8> {
        let units = (most.min(BLOCK) / self.unit()).max(1);
        let mut bytes = vec![0; units * self.unit()];
        match self {
            Kind::Zeros => {}
            Kind::Codes => random.fill(&mut bytes),
            Kind::Records { group } => {
                random.fill(&mut bytes);
                for record in bytes.chunks_mut(records::record_bytes(group)) {
                    record[records::CODES..].iter_mut().for_each(|scale| *scale = large_scale(*scale));
                }
            }
            Kind::E4m3 => {
                random.fill(&mut bytes);
                bytes.iter_mut().filter(|byte| **byte & 0x7f == 0x7f).for_each(|byte| *byte ^= 1);
            }
            Kind::Scales(DType::E4M3, under) => {
                random.fill(&mut bytes);
                let scale = if under { large_scale } else { small_scale };
                for byte in &mut bytes {
                    *byte = scale(*byte);
                }
            }
            Kind::Scales(dtype, under) => {
                random.numbers(&mut bytes, dtype, if under { 20.0 } else { 0.004 }, 0.25);
            }
            Kind::Outer(dtype) => random.numbers(&mut bytes, dtype, OUTER, 0.25),
            Kind::Vector(dtype) => random.numbers(&mut bytes, dtype, 1.0, 0.1),
            Kind::Matrix(dtype) => random.around_zero(&mut bytes, dtype),
        }
        bytes
    }
}

/// An E4M3 number from 16 to 30, from which no product with a code is infinite.
fn large_scale(byte: u8) -> u8 {
    0x58 | byte & 7
}

/// The E4M3 numbers 2·2⁻⁹ and 3·2⁻⁹.
fn small_scale(byte: u8) -> u8 {
    0x02 | byte & 1
}

/// With codes of −8 to 7 under [`large_scale`] it makes weights of a deviation of about 0.02.
const OUTER: f32 = 2e-4;

/// Blocks on a GPU, made when they are first wanted.
pub(super) struct Blocks {
    gpu: Gpu,
    random: Random,
    made: BTreeMap<Kind, DeviceBytes>,
}

impl Blocks {
    /// None yet.
    pub fn new(gpu: &Gpu, seed: u64) -> Self {
        Blocks { gpu: gpu.clone(), random: Random(seed), made: BTreeMap::new() }
    }

    /// Fills a part of a weight, `len` bytes from `at` on.
    pub fn fill(
        &mut self,
        to: &mut DeviceBytes,
        at: usize,
        len: usize,
        kind: Kind,
    ) -> Result<(), RuntimeError> {
        let known =
            self.made.get(&kind).is_some_and(|block| block.len() >= len.min(BLOCK - BLOCK % kind.unit()));
        if !known {
            let block = self.gpu.upload(&kind.block(len.next_multiple_of(kind.unit()), &mut self.random))?;
            self.made.insert(kind, block);
        }
        let block = &self.made[&kind];
        for done in (0..len).step_by(block.len()) {
            to.copy(at + done, block, block.len().min(len - done))?;
        }
        Ok(())
    }
}

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): good enough for numbers that only have to be many, and quick.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Uniform from −1 to 1.
    fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Numbers within a share of a middle.
    fn numbers(&mut self, bytes: &mut [u8], dtype: DType, middle: f32, share: f32) {
        write(bytes, dtype, || middle * (1.0 + share * self.signed()));
    }

    /// Sums of two uniform numbers, with a deviation of 0.02.
    fn around_zero(&mut self, bytes: &mut [u8], dtype: DType) {
        write(bytes, dtype, || 0.0245 * (self.signed() + self.signed()));
    }
}

/// Fills bytes with numbers of a dtype, those of 16 bits cut off rather than rounded.
fn write(bytes: &mut [u8], dtype: DType, mut number: impl FnMut() -> f32) {
    for chunk in bytes.chunks_mut((dtype.bits() / 8).max(1)) {
        let bits = number().to_bits();
        match dtype {
            DType::F32 => chunk.copy_from_slice(&bits.to_le_bytes()[..chunk.len()]),
            DType::F16 => chunk.copy_from_slice(&half(bits).to_le_bytes()[..chunk.len()]),
            _ => chunk.copy_from_slice(&((bits >> 16) as u16).to_le_bytes()[..chunk.len()]),
        }
    }
}

/// The f16 before an f32, given and returned as bits; 0 for what is below its normal numbers.
fn half(bits: u32) -> u16 {
    let (sign, exponent) = ((bits >> 16 & 0x8000) as u16, (bits >> 23 & 0xff) as i32 - 112);
    match exponent {
        ..=0 => sign,
        1..31 => sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16,
        _ => sign | 0x7bff,
    }
}

#[cfg(test)]
mod tests {
    use fireq_ir::e4m3;

    use super::*;

    const KINDS: [Kind; 10] = [
        Kind::Codes,
        Kind::Records { group: 128 },
        Kind::Records { group: 64 },
        Kind::E4m3,
        Kind::Scales(DType::E4M3, true),
        Kind::Scales(DType::E4M3, false),
        Kind::Scales(DType::BF16, false),
        Kind::Outer(DType::F32),
        Kind::Matrix(DType::BF16),
        Kind::Vector(DType::F16),
    ];

    #[test]
    fn blocks_are_of_whole_units_and_of_different_bytes_and_those_of_a_seed_are_equal() {
        for kind in KINDS {
            let [a, b, other] = [7, 7, 8].map(|seed| kind.block(100_000, &mut Random(seed)));
            assert!(a == b && a != other, "{kind:?}");
            assert!(
                a.len() <= 100_000 && a.len() > 90_000 && a.len().is_multiple_of(kind.unit()),
                "{kind:?}"
            );
        }
        assert_eq!(Kind::Zeros.block(8, &mut Random(0)), [0; 8]);
        assert_eq!(Kind::Records { group: 128 }.block(usize::MAX, &mut Random(0)).len() / 4160, BLOCK / 4160);
    }

    #[test]
    fn numbers_are_those_that_weights_could_have() {
        for under in [true, false] {
            let scales = Kind::Scales(DType::E4M3, under).block(4096, &mut Random(1));
            let range = if under { 16.0..=30.0 } else { 1.0 / 256.0..=3.0 / 512.0 };
            assert!(scales.iter().all(|scale| range.contains(&e4m3::decode(*scale))), "{under}");
        }
        let codes = Kind::E4m3.block(4096, &mut Random(1));
        assert!(codes.iter().all(|code| e4m3::decode(*code).is_finite()));
        let record = Kind::Records { group: 64 }.block(4224, &mut Random(1));
        assert!(record[4096..].iter().all(|scale| (16.0..=30.0).contains(&e4m3::decode(*scale))));
        let bf16 = |b: &[u8]| f32::from_bits(u32::from(b[1]) << 24 | u32::from(b[0]) << 16);
        let matrix: Vec<f32> =
            Kind::Matrix(DType::BF16).block(1 << 16, &mut Random(1)).chunks(2).map(bf16).collect();
        let deviation = (matrix.iter().map(|x| x * x).sum::<f32>() / matrix.len() as f32).sqrt();
        assert!((0.018..0.022).contains(&deviation), "{deviation}");
    }

    #[test]
    fn halves_are_those_of_their_numbers() {
        for (number, bits) in
            [(1.0f32, 0x3c00), (-0.5, 0xb800), (1.5, 0x3e00), (65504.0, 0x7bff), (0.0, 0), (1e9, 0x7bff)]
        {
            assert_eq!(half(number.to_bits()), bits, "{number}");
        }
    }
}
