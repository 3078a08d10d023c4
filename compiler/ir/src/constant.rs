//! Data of constants: inline, mapped from a file, decoded when it is asked for, or elided.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::DType;
use crate::interp::widen;
use crate::numbers::{SCAN, encode, first_non_finite};
use crate::{RowSource, SharedBytes};

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
    /// Rows that are made when they are asked for.
    Decoded {
        /// What makes them.
        source: Arc<dyn RowSource>,
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
        widen(dtype, &self.whole()?)
    }

    /// Shows the numbers to `see` a piece at a time, so that a large constant is never in memory as f32. False where there
    /// are none to show.
    pub fn for_each_piece(&self, dtype: DType, mut see: impl FnMut(&[f32])) -> bool {
        let mut show = |bytes: &[u8]| {
            let pieces = bytes.chunks(SCAN * dtype.bits() / 8);
            pieces.filter_map(|piece| widen(dtype, piece)).for_each(|piece| see(&piece));
        };
        match self {
            _ if !dtype.is_float() => return false,
            ConstData::Decoded { source, .. } => {
                pieces_of(&**source).for_each(|rows| show(&source.decode(rows)));
            }
            _ => match self.bytes() {
                Some(bytes) => show(bytes),
                None => return false,
            },
        }
        true
    }

    /// A constant whose rows are made when they are asked for.
    pub fn decoded(source: Arc<dyn RowSource>) -> Self {
        ConstData::Decoded { source, hash: Arc::default() }
    }

    /// A constant whose bytes are `range` of what `owner` holds.
    pub fn shared(owner: SharedBytes, range: Range<usize>) -> Self {
        ConstData::Bytes { owner, range, hash: Arc::default() }
    }

    /// The bytes where they lie in memory or in a file; `None` where they were elided, are made when they are asked for, or
    /// lie outside their owner.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            ConstData::Bytes { owner, range, .. } => owner.bytes().get(range.clone()),
            ConstData::Decoded { .. } | ConstData::Elided { .. } => None,
        }
    }

    /// All bytes, made if need be: of a large constant, more than anyone should hold for long.
    pub fn whole(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            ConstData::Decoded { source, .. } => Some(source.decode(0..source.rows()).into()),
            _ => self.bytes().map(Cow::Borrowed),
        }
    }

    /// How many bytes there are; `None` where they were elided.
    pub fn size(&self) -> Option<usize> {
        match self {
            ConstData::Decoded { source, .. } => source.rows().checked_mul(source.row_bytes()),
            _ => self.bytes().map(<[u8]>::len),
        }
    }

    /// Gives the memory behind mapped bytes back after use, so that a walk over a large checkpoint stays small.
    pub fn release(&self) {
        match self {
            ConstData::Bytes { owner, range, .. } => owner.release(range.clone()),
            ConstData::Decoded { source, .. } => source.parts().into_iter().for_each(ConstData::release),
            ConstData::Elided { .. } => {}
        }
    }

    /// The index of the first NaN or infinity when the bytes are numbers of `dtype`; `None` when there is none, when
    /// the dtype has none, and for elided data. Whoever consumes a constant checks this: weights are never read before.
    pub fn first_non_finite(&self, dtype: DType) -> Option<usize> {
        let ConstData::Decoded { source, .. } = self else { return first_non_finite(dtype, self.bytes()?) };
        let row = source.row_bytes() * 8 / dtype.bits();
        pieces_of(&**source).find_map(|rows| {
            let start = rows.start * row;
            first_non_finite(dtype, &source.decode(rows)).map(|at| start + at)
        })
    }

    /// The first 16 hex digits of the BLAKE3 hash of the bytes, or what the text said. Computed once for all clones;
    /// mapped memory is given back on the way.
    pub fn hash(&self) -> Option<Arc<str>> {
        match self {
            ConstData::Elided { hash } => hash.clone(),
            ConstData::Decoded { source, hash } => Some(hash.get_or_init(|| source.hash()).clone()),
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
            ConstData::Bytes { hash, .. } | ConstData::Decoded { hash, .. } => hash.get(),
        }
    }

    /// Says what the hash is, as somebody computed it from the same bytes.
    pub fn assume_hash(&self, known: &str) {
        if let ConstData::Bytes { hash, .. } | ConstData::Decoded { hash, .. } = self {
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

/// The rows of a source, some at a time.
fn pieces_of(source: &dyn RowSource) -> impl Iterator<Item = Range<usize>> + use<> {
    let (rows, step) = (source.rows(), (STEP / source.row_bytes().max(1)).max(1));
    (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
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
        let last = part >= all;
        if let (ConstData::Decoded { .. }, true) = (self.data, last) {
            // Rows may be made of all pages, so that these are given back at last, and hashed while they are at hand.
            self.data.hash();
            self.data.release();
        }
        let (ConstData::Bytes { owner, range, hash }, Some(bytes)) = (self.data, self.data.bytes()) else {
            return;
        };
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

impl fmt::Debug for ConstData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConstData::Bytes { range, .. } => write!(f, "Bytes({range:?})"),
            ConstData::Decoded { source, .. } => write!(f, "Decoded({} rows)", source.rows()),
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
}
