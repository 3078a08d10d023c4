//! Rows of packed integers: as numbers in f32, or as I4 codes under f32 scales.

use std::ops::Range;
use std::sync::Arc;

use fireq_ir::{ConstData, DType, Level, Per, RowSource, Scheme, Shape, Type};

use super::layout::{Codes, Scales, Zeros};

/// A weight `[rows, cols]` of packed integers. Its tensors have the shapes of their orders.
pub(super) struct Integers {
    pub rows: usize,
    pub cols: usize,
    /// 4, or 8.
    pub bits: u32,
    pub codes: Codes,
    pub zeros: Zeros,
    pub scales: Scales,
    pub groups: Groups,
}

/// Which channels share a scale.
pub(super) enum Groups {
    /// This many neighbours; the last group may be shorter.
    Neighbours(usize),
    /// The group of each channel, of so many.
    Listed(Vec<u32>, usize),
}

impl Groups {
    /// How many there are in a row.
    pub fn count(&self, cols: usize) -> usize {
        match self {
            Groups::Neighbours(size) => cols.div_ceil(*size),
            Groups::Listed(_, count) => *count,
        }
    }
}

impl Integers {
    /// Why the codes are no I4 codes; `None` where they are.
    fn foreign(&self) -> Option<&'static str> {
        if self.bits != 4 {
            return Some("8 bits");
        }
        if matches!(self.groups, Groups::Listed(..)) {
            return Some("act-order");
        }
        (!self.zeros.are_middle(self.bits)).then_some("zero points")
    }

    /// Why no kernel decodes I4 codes in these groups.
    fn odd(&self) -> Option<&'static str> {
        let odd =
            matches!(self.groups, Groups::Neighbours(size) if size < self.cols && !size.is_multiple_of(32));
        odd.then_some("groups of other than multiples of 32")
    }

    /// As a constant, of I4 codes where they are such, and why they cannot stay where they cannot.
    pub fn constant(self) -> (Type, ConstData, Option<&'static str>) {
        let (shape, foreign) = (Shape::matrix(self.rows, self.cols), self.foreign());
        let per = match self.groups {
            Groups::Neighbours(size) if size < self.cols => Per::Group(size),
            _ => Per::Row,
        };
        let scheme = Scheme(vec![Level { per, dtype: DType::F32 }]);
        if foreign.is_none() {
            let (ty, odd) = (Type { dtype: DType::I4, scheme, shape }, self.odd());
            return (ty, ConstData::decoded(Arc::new(AsCodes(self))), odd);
        }
        (Type::plain(DType::F32, shape), ConstData::decoded(Arc::new(AsNumbers(self))), foreign)
    }

    /// Words of a row in the order of channels.
    fn width(&self) -> usize {
        (self.cols * self.bits as usize).div_ceil(32)
    }

    fn parts(&self) -> impl Iterator<Item = &ConstData> {
        [self.codes.data(), &self.scales.data].into_iter().chain(self.zeros.data())
    }

    fn hash(&self, of: &str) -> Arc<str> {
        let mut hasher = blake3::Hasher::new();
        let more = if let Zeros::Columns { more, .. } = self.zeros { more } else { 0 };
        let order = std::mem::discriminant(&self.codes);
        let mut text = format!("{of} {order:?} {} {} {} {more}", self.rows, self.cols, self.bits);
        for part in self.parts() {
            text = format!("{text} {}", part.hash().unwrap_or_default());
        }
        hasher.update(text.as_bytes());
        match &self.groups {
            Groups::Neighbours(size) => hasher.update(&size.to_le_bytes()),
            Groups::Listed(groups, _) => {
                groups.iter().fold(&mut hasher, |hasher, g| hasher.update(&g.to_le_bytes()))
            }
        };
        hasher.finalize().to_hex()[..16].into()
    }

    /// The numbers that the codes of a row stand for, behind `out`.
    fn decode_row(&self, row: usize, words: &[u32], out: &mut Vec<u8>) {
        let groups = self.groups.count(self.cols);
        let zeros = self.zeros.of_row(row, self.rows, groups, self.bits);
        let scales = self.scales.of_row(row, groups);
        let number =
            |code: u32, group: usize| ((code as i32 - zeros[group]) as f32 * scales[group]).to_le_bytes();
        let (per, mask) = (32 / self.bits as usize, (1 << self.bits) - 1);
        let code = |k: usize| words[k / per] >> (self.bits as usize * (k % per)) & mask;
        match &self.groups {
            Groups::Listed(listed, _) => {
                listed.iter().enumerate().for_each(|(k, group)| out.extend(number(code(k), *group as usize)));
            }
            Groups::Neighbours(size) => {
                for (group, start) in (0..self.cols).step_by(*size).enumerate() {
                    (start..(start + size).min(self.cols)).for_each(|k| out.extend(number(code(k), group)));
                }
            }
        }
    }
}

/// The numbers.
struct AsNumbers(Integers);

impl RowSource for AsNumbers {
    fn rows(&self) -> usize {
        self.0.rows
    }

    fn row_bytes(&self) -> usize {
        4 * self.0.cols
    }

    fn decode(&self, rows: Range<usize>) -> Vec<u8> {
        let width = self.0.width();
        let words = self.0.codes.words(&rows, self.0.rows, width);
        let mut out = Vec::with_capacity(rows.len() * self.row_bytes());
        for (row, words) in rows.zip(words.chunks_exact(width)) {
            self.0.decode_row(row, words, &mut out);
        }
        out
    }

    fn hash(&self) -> Arc<str> {
        self.0.hash("numbers")
    }

    fn parts(&self) -> Vec<&ConstData> {
        self.0.parts().collect()
    }
}

/// The codes, less their middle, and their scales.
struct AsCodes(Integers);

impl RowSource for AsCodes {
    fn rows(&self) -> usize {
        self.0.rows
    }

    fn row_bytes(&self) -> usize {
        self.0.cols.div_ceil(2) + 4 * self.0.groups.count(self.0.cols)
    }

    fn decode(&self, rows: Range<usize>) -> Vec<u8> {
        // Four bits u of 0 to 15 are u − 8 in two's complement when the highest is turned around.
        const MIDDLE: u32 = 0x8888_8888;
        let (width, groups, cols) = (self.0.width(), self.0.groups.count(self.0.cols), self.0.cols);
        let words = self.0.codes.words(&rows, self.0.rows, width);
        let mut out = Vec::with_capacity(rows.len() * self.row_bytes());
        for words in words.chunks_exact(width) {
            let start = out.len();
            out.extend(words.iter().flat_map(|word| (word ^ MIDDLE).to_le_bytes()));
            out.truncate(start + cols.div_ceil(2));
            if let (1, Some(last)) = (cols % 2, out.last_mut()) {
                *last &= 15;
            }
        }
        for row in rows {
            self.0.scales.of_row(row, groups).iter().for_each(|scale| out.extend(scale.to_le_bytes()));
        }
        out
    }

    fn hash(&self) -> Arc<str> {
        self.0.hash("codes")
    }

    fn parts(&self) -> Vec<&ConstData> {
        self.0.parts().collect()
    }
}
