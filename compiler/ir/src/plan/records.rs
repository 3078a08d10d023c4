//! Weights in the order in which tensor-core kernels read them.
//!
//! A record holds 64 rows and 128 columns: 4096 bytes of codes, and behind them an E4M3 scale for each row and group of 128
//! or 64 columns. Records of the same rows follow each other, so that a kernel copies one after another without gaps.
//!
//! Codes lie as `wgmma` wants its operand A in registers. Lane `4·g + t` of warp `w` has rows `16·w + g` and
//! `16·w + g + 8`, and of 32 columns the four from `4·t` and the four from `16 + 4·t`:
//!
//! ```text
//! half of the record | warp | lane | word of 8 codes                    | nibble of the word, low first
//! 64 columns: 0, 1   | 0..4 | 0..32| row g, row g+8, row g, row g+8     | 4·t … 4·t+3, 16+4·t … 16+4·t+3
//!                    |      |      | 32 columns ------  the next 32 ----|
//! ```
//!
//! A lane's four words are 16 bytes, those of a warp 512, of which no two lanes share a bank. Scales of rows `g` and `g + 8`
//! are neighbours. Rows beyond the last have scales of zero, columns beyond it codes of zero. Records of rows come in pairs,
//! so that two warpgroups always have some.

use rayon::prelude::*;

use crate::quant::Quantized;
use crate::{Format, Per, Type, e4m3};

/// Rows of a record.
pub const ROWS: usize = 64;
/// Columns of a record.
pub const COLS: usize = 128;
/// Bytes of a record's codes.
pub const CODES: usize = ROWS * COLS / 2;

/// Rows whose records come together.
pub(super) const ROW_TILE: usize = 2 * ROWS;

/// Bytes of a record whose scales cover `group` columns.
pub const fn record_bytes(group: usize) -> usize {
    CODES + ROWS * (COLS / group)
}

/// The columns that a scale covers in the records of a matrix: 64 or 128. `None` for what has none, which is all but INT4
/// in groups of 64 or 128 columns under E4M3 scales, under an f32 scale for each row.
pub fn group(ty: &Type) -> Option<usize> {
    let cols = ty.shape.cols().fixed().filter(|_| ty.shape.0.len() == 2)?;
    group_of(&ty.format(), cols)
}

fn group_of(format: &Format, cols: usize) -> Option<usize> {
    let Per::Group(group) = format.scheme.0.first()?.per else { return None };
    if *format != Format::weight(group) || cols == 0 {
        return None;
    }
    // A short row is one group, however long groups may be.
    let group = if cols <= COLS && group >= cols { COLS } else { group };
    matches!(group, 64 | COLS).then_some(group)
}

/// The records of a weight: `rows/64 × cols/128`, both rounded up, the former to an even number. `None` where
/// [`group`] is.
pub fn records(weight: &Quantized) -> Option<Vec<u8>> {
    let group = group_of(&weight.format, weight.cols)?;
    let tiles = weight.rows().div_ceil(ROW_TILE) * (ROW_TILE / ROWS);
    let bytes = weight.cols.div_ceil(COLS) * record_bytes(group);
    let mut all = vec![0; tiles * bytes];
    all.par_chunks_mut(bytes).enumerate().for_each(|(tile, of_rows)| {
        for (step, record) in of_rows.chunks_mut(record_bytes(group)).enumerate() {
            fill(record, &Place { weight, group, row: tile * ROWS, col: step * COLS });
        }
    });
    Some(all)
}

/// Where a record lies in its weight.
struct Place<'a> {
    weight: &'a Quantized,
    group: usize,
    row: usize,
    col: usize,
}

impl Place<'_> {
    /// The code at a row and column of the record, four bits of two's complement.
    fn code(&self, row: usize, col: usize) -> u32 {
        let (row, col) = (self.row + row, self.col + col);
        let inside = row < self.weight.rows() && col < self.weight.cols;
        if inside { self.weight.codes[row * self.weight.cols + col] as u32 & 15 } else { 0 }
    }

    /// The scale of a row's n-th group in the record.
    fn scale(&self, row: usize, n: usize) -> u8 {
        let groups = self.weight.cols.div_ceil(self.group);
        let (row, group) = (self.row + row, self.col / self.group + n);
        let inside = row < self.weight.rows() && group < groups;
        if inside { e4m3::encode(self.weight.scales[0][row * groups + group]) } else { 0 }
    }
}

/// The codes and inner scales of `rows` rows of `cols` columns: the inverse of [`records`].
pub(super) fn unpack(all: &[u8], rows: usize, cols: usize, group: usize) -> (Vec<i8>, Vec<f32>) {
    let steps = cols.div_ceil(COLS);
    let record = |row: usize, col: usize| &all[(row / ROWS * steps + col / COLS) * record_bytes(group)..];
    let code = |i: usize| {
        let (row, col) = (i / cols, i % cols);
        let (within, lane) = (row % 16, row % 8 * 4 + col % 16 / 4);
        let word = col % 64 / 32 * 2 + within / 8;
        let nibble = col % 32 / 16 * 4 + col % 4;
        let at = ((col % COLS / 64 * 4 + row % ROWS / 16) * 32 + lane) * 16 + word * 4 + nibble / 2;
        (record(row, col)[at] << (4 - nibble % 2 * 4)) as i8 >> 4
    };
    let groups = cols.div_ceil(group);
    let scale = |i: usize| {
        let (row, col) = (i / groups, i % groups * group);
        let at = col % COLS / group * ROWS + row % ROWS / 16 * 16 + row % 8 * 2 + row % 16 / 8;
        e4m3::decode(record(row, col)[CODES + at])
    };
    ((0..rows * cols).map(code).collect(), (0..rows * groups).map(scale).collect())
}

fn fill(record: &mut [u8], place: &Place) {
    let (codes, scales) = record.split_at_mut(CODES);
    for (n, bytes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let (word, lane, warp, half) = (n % 4, n / 4 % 32, n / 128 % 4, n / 512);
        let row = 16 * warp + lane / 4 + word % 2 * 8;
        let col = 64 * half + 32 * (word / 2) + 4 * (lane % 4);
        let nibble = |i: usize| place.code(row, col + i / 4 * 16 + i % 4) << (4 * i);
        *bytes = (0..8).map(nibble).fold(0, |word, nibble| word | nibble).to_le_bytes();
    }
    for (n, byte) in scales.iter_mut().enumerate() {
        let (second, g, warp, group) = (n % 2, n / 2 % 8, n / 16 % 4, n / 64);
        *byte = place.scale(16 * warp + g + 8 * second, group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fit;

    fn weight(rows: usize, cols: usize, group: usize) -> Quantized {
        let x: Vec<f32> = (0..rows * cols).map(|i| ((i * i + 7 * i) as f32 * 0.37).sin()).collect();
        Quantized::from_rows(&x, cols, &Format::weight(group), Fit::Signed)
    }

    #[test]
    fn codes_and_scales_are_where_the_picture_has_them() {
        let (rows, cols) = (64 + 3, 256 + 60);
        let weight = weight(rows, cols, 128);
        let all = records(&weight).unwrap();
        assert_eq!(all.len(), 2 * 3 * 4160);
        // Row 64 + 1, column 128 + 32 + 16 + 6: warp 0, g 1, t 1; the second tile's second record.
        let record = &all[(3 + 1) * 4160..][..4160];
        let lane_bytes = &record[(4 + 1) * 16..][..16];
        // Columns 32..64 of row g are the third word; 16 + 4·t + 2 is its seventh nibble.
        let word = u32::from_le_bytes(lane_bytes[8..12].try_into().unwrap());
        assert_eq!(word >> 24 & 15, weight.codes[65 * cols + 128 + 32 + 16 + 6] as u32 & 15);
        assert_eq!(record[4096 + 2], e4m3::encode(weight.scales[0][65 * 3 + 1]));
        // Rows beyond the last.
        assert_eq!(record[4096 + 2 * 4], 0);
        assert!(all[5 * 4160 + 2048..][..2048].iter().all(|b| *b == 0), "columns beyond the last");
    }

    #[test]
    fn every_code_is_somewhere_once() {
        let weight = weight(64, 128, 64);
        let record = records(&weight).unwrap();
        assert_eq!(record.len(), 2 * record_bytes(64));
        let count = |of: &mut dyn Iterator<Item = u32>| {
            of.fold([0; 16], |mut n, c| {
                n[c as usize] += 1;
                n
            })
        };
        let stored = count(&mut record[..CODES].iter().flat_map(|b| [u32::from(b & 15), u32::from(b >> 4)]));
        assert_eq!(stored, count(&mut weight.codes.iter().map(|c| *c as u32 & 15)));
    }

    #[test]
    fn short_rows_are_one_group_and_other_formats_are_refused() {
        assert_eq!(records(&weight(64, 96, 128)).unwrap().len(), 2 * 4160);
        assert!(records(&weight(64, 256, 32)).is_none());
        assert_eq!(group(&Type::f32(64, 48).with_format(&Format::weight(64))), Some(128));
        assert_eq!(group(&Type::f32(64, 96).with_format(&Format::weight(64))), Some(64));
        assert_eq!(group(&Type::f32(64, 256).with_format(&Format::kv(128))), None);
    }
}
