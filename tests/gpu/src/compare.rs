//! Whether memory is near enough to what was expected.

use fireq_ir::e4m3;
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::case::{Expected, Tolerance};

/// What bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Dtype {
    F32,
    Bf16,
    E4m3,
    /// Two codes in a byte, the first in its low half.
    I4,
    /// Nothing but bits.
    Bytes,
}

/// How near memory is to what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The relative L2 error of the numbers; the share of different bytes where they mean none.
    pub error: f64,
    /// The share of codes that differ.
    pub differing: f64,
    /// The first one that does.
    pub first: Option<usize>,
}

/// Compares memory with what was expected. `Err` says what is wrong.
pub fn compare(found: &[u8], expected: &Expected) -> Result<Agreement, String> {
    let Expected { bytes, dtype, tolerance } = expected;
    if found.len() != bytes.len() {
        return Err(format!("{} bytes instead of {}", found.len(), bytes.len()));
    }
    let (a, b) = (dtype.numbers(bytes), dtype.numbers(found));
    let differing: Vec<usize> = (0..a.len()).filter(|i| a[*i].to_bits() != b[*i].to_bits()).collect();
    let share = differing.len() as f64 / a.len().max(1) as f64;
    let agreement =
        Agreement { error: relative(&a, &b), differing: share, first: differing.first().copied() };
    let near = match tolerance {
        Tolerance::Exact => differing.is_empty(),
        // A NaN is not below anything.
        Tolerance::Relative(most) => agreement.error <= *most,
        Tolerance::Steps(most) => share <= *most && differing.iter().all(|i| dtype.neighbours(a[*i], b[*i])),
    };
    if near { Ok(agreement) } else { Err(wrong(&agreement, *tolerance, &a, &b)) }
}

fn wrong(agreement: &Agreement, tolerance: Tolerance, expected: &[f32], found: &[f32]) -> String {
    let Agreement { error, differing, first } = agreement;
    let at = first.map(|i| format!("; at {i} {} instead of {}", found[i], expected[i])).unwrap_or_default();
    format!("error {error:.2e}, {:.2} % differ, allowed {tolerance:?}{at}", differing * 100.0)
}

fn relative(expected: &[f32], found: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = expected.iter().zip(found).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = expected.iter().map(|a| square(f64::from(*a))).sum();
    if error == 0.0 { 0.0 } else { (error / size.max(f64::MIN_POSITIVE)).sqrt() }
}

impl Dtype {
    /// The numbers that bytes stand for, or the bytes themselves.
    fn numbers(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = |f: fn([u8; 2]) -> f32| bytes.chunks_exact(2).map(|b| f([b[0], b[1]])).collect();
        match self {
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::Bf16 => pairs(|b| bf16::from_le_bytes(b).to_f32()),
            Dtype::E4m3 => bytes.iter().map(|b| e4m3::decode(*b)).collect(),
            Dtype::I4 => bytes.iter().flat_map(|b| [nibble(*b & 15), nibble(*b >> 4)]).collect(),
            Dtype::Bytes => bytes.iter().map(|b| f32::from(*b)).collect(),
        }
    }

    /// True for numbers with none of the format between them.
    fn neighbours(self, a: f32, b: f32) -> bool {
        let order = |x: f32| {
            let bits = i64::from(x.to_bits() & 0x7FFF_FFFF);
            if x.is_sign_negative() { -bits } else { bits }
        };
        match self {
            Dtype::F32 => (order(a) - order(b)).abs() <= 1,
            Dtype::Bf16 => (order(a) - order(b)).abs() <= 1 << 16,
            Dtype::E4m3 => (rank(a) - rank(b)).abs() <= 1,
            Dtype::I4 => (a - b).abs() <= 1.0,
            Dtype::Bytes => false,
        }
    }

    /// Values between −1 and 1, or any bits where they are codes; the same for the same seed.
    pub fn random(self, seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // Caches of many sequences are gigabytes: each thread begins where the one before ends.
        bytes.par_chunks_mut(CHUNK).enumerate().for_each(|(n, chunk)| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_word_pos((n * CHUNK / 4) as u128);
            rng.fill_bytes(chunk);
            self.tame(chunk);
        });
        bytes
    }

    /// Numbers from any bits.
    fn tame(self, bytes: &mut [u8]) {
        match self {
            Dtype::F32 => each::<4>(bytes, |b| unit(b[3], u16::from_le_bytes([b[0], b[1]])).to_le_bytes()),
            Dtype::Bf16 => {
                each::<2>(bytes, |b| bf16::from_f32(unit(b[1], u16::from(b[0]) << 8)).to_le_bytes());
            }
            // Exponents of numbers from 2⁻⁶ to 1: all signs and mantissas, no NaN.
            Dtype::E4m3 => each::<1>(bytes, |[b]| [b & 0x87 | (1 + (b >> 3 & 15) % 6) << 3]),
            Dtype::I4 | Dtype::Bytes => {}
        }
    }
}

/// Random bytes of a thread at a time: whole numbers, and whole words of the generator.
const CHUNK: usize = 1 << 20;

/// Replaces every `N` bytes.
fn each<const N: usize>(bytes: &mut [u8], to: impl Fn([u8; N]) -> [u8; N]) {
    for chunk in bytes.as_chunks_mut::<N>().0 {
        *chunk = to(*chunk);
    }
}

/// A number from −1 to 1 with 24 bits.
fn unit(high: u8, low: u16) -> f32 {
    (f32::from(high) * 65536.0 + f32::from(low)) / 8388608.0 - 1.0
}

/// The place of an E4M3 number among all of them.
fn rank(x: f32) -> i32 {
    let magnitude = (0..0x7F).find(|code| e4m3::decode(*code) >= x.abs()).unwrap_or(0x7F);
    if x < 0.0 { -i32::from(magnitude) } else { i32::from(magnitude) }
}

/// The number of a code of four bits in two's complement.
fn nibble(code: u8) -> f32 {
    f32::from((code << 4) as i8 >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(bytes: &[u8], dtype: Dtype, tolerance: Tolerance) -> Expected {
        Expected { bytes: bytes.to_vec(), dtype, tolerance }
    }

    #[test]
    fn nothing_but_equal_bits_is_exact() {
        let one = expected(&1f32.to_le_bytes(), Dtype::F32, Tolerance::Exact);
        assert_eq!(compare(&1f32.to_le_bytes(), &one).unwrap().error, 0.0);
        let message = compare(&(1f32 + f32::EPSILON).to_le_bytes(), &one).unwrap_err();
        assert!(message.contains("at 0 1.0000001 instead of 1"), "{message}");
        assert!(compare(&[0; 8], &one).is_err());
    }

    #[test]
    fn poison_is_never_near() {
        let zero = expected(&[0; 4], Dtype::F32, Tolerance::Relative(1e9));
        assert!(compare(&[0xFF; 4], &zero).is_err());
        let zero = expected(&[0; 4], Dtype::E4m3, Tolerance::Steps(1.0));
        assert!(compare(&[0xFF; 4], &zero).is_err());
    }

    #[test]
    fn few_codes_may_be_a_step_away() {
        let codes = expected(&[0x38, 0x40, 0xB8, 0x00], Dtype::E4m3, Tolerance::Steps(0.25));
        assert!(compare(&[0x38, 0x41, 0xB8, 0x00], &codes).is_ok());
        assert!(compare(&[0x38, 0x40, 0xB8, 0x81], &codes).is_ok());
        assert!(compare(&[0x38, 0x42, 0xB8, 0x00], &codes).is_err(), "two steps");
        assert!(compare(&[0x39, 0x41, 0xB8, 0x00], &codes).is_err(), "two codes");
        let nibbles = expected(&[0x7F, 0x80], Dtype::I4, Tolerance::Steps(0.25));
        assert!(compare(&[0x70, 0x80], &nibbles).is_ok(), "−1 and 0 are neighbours");
        assert!(compare(&[0x7F, 0x70], &nibbles).is_err(), "−8 and 7 are not");
    }

    #[test]
    fn random_bytes_are_the_same_from_many_threads() {
        let mut expected = vec![0; 2 * CHUNK + 5];
        ChaCha8Rng::seed_from_u64(3).fill_bytes(&mut expected);
        assert!(Dtype::Bytes.random(3, expected.len()) == expected);
    }

    #[test]
    fn random_numbers_are_finite_and_differ_by_seed() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::E4m3] {
            let (a, b) = (dtype.random(1, 4096), dtype.random(2, 4096));
            assert_ne!(a, b);
            assert!(dtype.numbers(&a).iter().all(|x| x.abs() <= 1.0));
        }
    }
}
