//! Data of constants: inline, mapped from a file, or elided.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::DType;
use crate::SharedBytes;
use crate::interp::widen;

/// The data of a constant, little endian, in the dtype that its type declares.
#[derive(Clone)]
pub enum ConstData {
    /// Bytes `range` of a mapped file or a vector.
    Bytes {
        /// Where the bytes live.
        owner: SharedBytes,
        /// Which of them belong to the constant.
        range: Range<usize>,
        /// Their hash, once it was asked for.
        hash: Arc<OnceLock<Arc<str>>>,
    },
    /// Left out of the text this graph came from; the hash, if it was printed, is kept.
    Elided {
        /// The hash that stood in the text.
        hash: Option<Arc<str>>,
    },
}

impl ConstData {
    /// A constant that owns `values`.
    pub fn from_f32(values: &[f32]) -> Self {
        Self::from_bytes(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant that owns its bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self::shared(Arc::new(bytes), range)
    }

    /// A constant of numbers in a dtype that holds them exactly; `None` where one does not fit, and for codes.
    pub fn from_numbers(dtype: DType, values: &[f32]) -> Option<Self> {
        encode(dtype, values).map(Self::from_bytes)
    }

    /// The numbers, where the data is there and `dtype` is one of floats.
    pub fn numbers(&self, dtype: DType) -> Option<Vec<f32>> {
        widen(dtype, self.bytes()?)
    }

    /// Shows the numbers to `see` a piece at a time, so that a large constant is never in memory as f32. False where there
    /// are none to show.
    pub fn for_each_piece(&self, dtype: DType, mut see: impl FnMut(&[f32])) -> bool {
        let Some(bytes) = self.bytes().filter(|_| dtype.is_float()) else { return false };
        bytes
            .chunks(SCAN * dtype.bits() / 8)
            .filter_map(|piece| widen(dtype, piece))
            .for_each(|piece| see(&piece));
        true
    }

    /// A constant whose bytes are `range` of what `owner` holds.
    pub fn shared(owner: SharedBytes, range: Range<usize>) -> Self {
        ConstData::Bytes { owner, range, hash: Arc::default() }
    }

    /// The bytes, unless they were elided or the range lies outside their owner.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            ConstData::Bytes { owner, range, .. } => owner.bytes().get(range.clone()),
            ConstData::Elided { .. } => None,
        }
    }

    /// Gives the memory behind mapped bytes back after use, so that a walk over a large checkpoint stays small.
    pub fn release(&self) {
        if let ConstData::Bytes { owner, range, .. } = self {
            owner.release(range.clone());
        }
    }

    /// The index of the first NaN or infinity when the bytes are numbers of `dtype`; `None` when there is none, when
    /// the dtype has none, and for elided data. Whoever consumes a constant checks this: weights are never read before.
    pub fn first_non_finite(&self, dtype: DType) -> Option<usize> {
        first_non_finite(dtype, self.bytes()?)
    }

    /// The first 16 hex digits of the BLAKE3 hash of the bytes, or what the text said. Computed once for all clones;
    /// mapped memory is given back on the way.
    pub fn hash(&self) -> Option<Arc<str>> {
        match self {
            ConstData::Elided { hash } => hash.clone(),
            ConstData::Bytes { hash, range, .. } => {
                if hash.get().is_none() {
                    let (mut reading, steps) = (self.reading(), range.len().div_ceil(STEP).max(1));
                    (1..=steps).for_each(|step| reading.passed(step, steps));
                }
                hash.get().cloned()
            }
        }
    }

    /// The hash, where it was computed before.
    pub fn known_hash(&self) -> Option<&Arc<str>> {
        match self {
            ConstData::Elided { hash } => hash.as_ref(),
            ConstData::Bytes { hash, .. } => hash.get(),
        }
    }

    /// Says what the hash is, as somebody computed it from the same bytes.
    pub fn assume_hash(&self, known: &str) {
        if let ConstData::Bytes { hash, .. } = self {
            hash.get_or_init(|| known.into());
        }
    }

    /// For someone who reads the data from its beginning to its end.
    pub fn reading(&self) -> Reading<'_> {
        let known = matches!(self, ConstData::Bytes { hash, .. } if hash.get().is_some());
        let hasher = (!known).then(|| Box::new(blake3::Hasher::new()));
        Reading { data: self, hasher, hashed: 0, released: 0 }
    }
}

/// How far someone has read a constant. What was read is hashed while it is at hand, so that [`ConstData::hash`] needs not
/// read it again, and memory behind mapped bytes is given back.
pub struct Reading<'a> {
    data: &'a ConstData,
    /// Unless the hash is known.
    hasher: Option<Box<blake3::Hasher>>,
    hashed: usize,
    released: usize,
}

/// Mapped memory is given back in steps of this many bytes: few enough to be small beside a tensor, and worth the call.
const STEP: usize = 2 << 20;

impl Reading<'_> {
    /// Says that `part` of `all` equal parts are read.
    pub fn passed(&mut self, part: usize, all: usize) {
        let (ConstData::Bytes { owner, range, hash }, Some(bytes)) = (self.data, self.data.bytes()) else {
            return;
        };
        let last = part >= all;
        let end = if last { bytes.len() } else { bytes.len() / all * part };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes[self.hashed..end]);
            self.hashed = end;
        }
        if last || end - self.released >= STEP {
            owner.release(range.start + self.released..range.start + end);
            self.released = end;
        }
        if let Some(hasher) = self.hasher.take_if(|_| last) {
            hash.get_or_init(|| hasher.finalize().to_hex()[..16].into());
        }
    }
}

/// The index of the first NaN or infinity in bytes of numbers; `None` for dtypes that have none.
pub fn first_non_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    match dtype {
        DType::F32 => position32(bytes, 0x7f80_0000),
        DType::F16 => position16(bytes, 0x7c00),
        DType::BF16 => position16(bytes, 0x7f80),
        DType::E4M3 => bytes.iter().position(|b| b & 0x7f == 0x7f),
        DType::I4 | DType::I32 => None,
    }
}

/// The bytes of numbers in a dtype that holds them exactly.
fn encode(dtype: DType, values: &[f32]) -> Option<Vec<u8>> {
    let each = |f: &dyn Fn(f32) -> Option<Vec<u8>>| -> Option<Vec<u8>> {
        let parts: Option<Vec<Vec<u8>>> = values.iter().map(|v| f(*v)).collect();
        parts.map(|p| p.concat())
    };
    match dtype {
        DType::F32 => each(&|v| Some(v.to_le_bytes().to_vec())),
        DType::BF16 => each(&|v| {
            let x = half::bf16::from_f32(v);
            (x.to_f32() == v).then(|| x.to_le_bytes().to_vec())
        }),
        DType::F16 => each(&|v| {
            let x = half::f16::from_f32(v);
            (x.to_f32() == v).then(|| x.to_le_bytes().to_vec())
        }),
        // Compared in f64, which holds every i32: 2147483648 would come back as itself in f32.
        DType::I32 => {
            each(&|v| (f64::from(v as i32) == f64::from(v)).then(|| (v as i32).to_le_bytes().to_vec()))
        }
        _ => None,
    }
}

/// Elements whose exponent bits are looked at together, so that the scan of finite data runs at memory speed.
const SCAN: usize = 4096;

/// The first 16-bit element with every bit of `exponent` set.
fn position16(bytes: &[u8], exponent: u16) -> Option<usize> {
    let hit = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & exponent == exponent;
    let any = |block: &[u8]| block.chunks_exact(2).fold(false, |found, b| found | hit(b));
    let block = bytes.chunks(2 * SCAN).position(any)?;
    bytes[block * 2 * SCAN..].chunks_exact(2).position(hit).map(|i| block * SCAN + i)
}

/// The first 32-bit element with every bit of `exponent` set.
fn position32(bytes: &[u8], exponent: u32) -> Option<usize> {
    let hit = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & exponent == exponent;
    let any = |block: &[u8]| block.chunks_exact(4).fold(false, |found, b| found | hit(b));
    let block = bytes.chunks(4 * SCAN).position(any)?;
    bytes[block * 4 * SCAN..].chunks_exact(4).position(hit).map(|i| block * SCAN + i)
}

impl fmt::Debug for ConstData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConstData::Bytes { range, .. } => write!(f, "Bytes({range:?})"),
            ConstData::Elided { hash } => write!(f, "Elided({hash:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(bytes: Vec<u8>) -> ConstData {
        ConstData::from_bytes(bytes)
    }

    #[test]
    fn the_first_non_finite_number_is_found_wherever_it_stands() {
        for at in [0, 1, SCAN - 1, SCAN, 2 * SCAN + 7] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.5f32; 3 * SCAN];
                values[at] = bad;
                let bf16 = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
                let f16 = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
                assert_eq!(ConstData::from_f32(&values).first_non_finite(DType::F32), Some(at));
                assert_eq!(holding(bf16).first_non_finite(DType::BF16), Some(at));
                assert_eq!(holding(f16).first_non_finite(DType::F16), Some(at));
            }
        }
    }

    #[test]
    fn the_hash_is_that_of_all_bytes_however_they_were_read() {
        let bytes: Vec<u8> = (0..3 * STEP + 12).map(|i| (i * i / 7) as u8).collect();
        let expected: Arc<str> = blake3::hash(&bytes).to_hex()[..16].into();
        assert_eq!(holding(bytes.clone()).hash(), Some(expected.clone()));
        for parts in [1, 3, 100] {
            let data = holding(bytes.clone());
            let mut reading = data.reading();
            (1..=parts).for_each(|part| reading.passed(part, parts));
            let ConstData::Bytes { hash, .. } = &data else { panic!() };
            assert_eq!(hash.get(), Some(&expected), "{parts} parts");
        }
    }

    #[test]
    fn what_was_read_is_released_once_in_steps() {
        struct Released(Vec<u8>, std::sync::Mutex<Vec<Range<usize>>>);
        impl crate::ByteSource for Released {
            fn bytes(&self) -> &[u8] {
                &self.0
            }
            fn release(&self, range: Range<usize>) {
                self.1.lock().unwrap().push(range);
            }
        }
        let source = Arc::new(Released(vec![1; 2 * STEP + 100], std::sync::Mutex::default()));
        ConstData::shared(source.clone(), 40..2 * STEP + 90).hash();
        let released = source.1.lock().unwrap();
        assert!((2..=3).contains(&released.len()), "{released:?}");
        assert_eq!((released[0].start, released.last().unwrap().end), (40, 2 * STEP + 90));
        assert!(released.windows(2).all(|pair| pair[0].end == pair[1].start), "{released:?}");
    }

    #[test]
    fn the_largest_finite_numbers_pass() {
        assert_eq!(ConstData::from_f32(&[f32::MAX, f32::MIN]).first_non_finite(DType::F32), None);
        let f16 = half::f16::MAX.to_le_bytes().to_vec();
        assert_eq!(holding(f16).first_non_finite(DType::F16), None);
    }
}
