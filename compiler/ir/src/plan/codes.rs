//! Codes in the order of a storage.

use std::borrow::Cow;

use rayon::prelude::*;

use super::storage::{BLOCK, LINE, pitch};
use super::{LINEAR_ROWS, Part, Storage};
use crate::quant::{PIECE, Quantized};
use crate::{DType, Format, e4m3};

/// The codes of a tensor in the order of a storage whose part they are.
pub(super) fn pack_codes(q: &Quantized, storage: Storage, part: &Part) -> Vec<u8> {
    let (tile, row_bytes) = (part.row_tile, part.row_bytes().max(1));
    let mut bytes = vec![0; q.rows().next_multiple_of(tile) * part.row_bytes()];
    let piece = (PIECE / q.cols).max(1).next_multiple_of(tile);
    let pack = |(codes, bytes): (&[i8], &mut [u8])| {
        let tiles = codes.chunks(tile * q.cols).zip(bytes.chunks_mut(tile * row_bytes));
        tiles.for_each(|(codes, bytes)| match storage {
            Storage::Interleaved => interleave(codes, q.cols, bytes),
            _ => pack_row(codes, &q.format, storage, bytes),
        });
    };
    if q.rows() <= piece {
        pack((&q.codes, &mut bytes));
    } else {
        q.codes.par_chunks(piece * q.cols).zip(bytes.par_chunks_mut(piece * row_bytes)).for_each(pack);
    }
    bytes
}

/// A tile of rows, a line of each after that of the one before.
fn interleave(codes: &[i8], cols: usize, bytes: &mut [u8]) {
    for (r, row) in codes.chunks(cols).enumerate() {
        for (codes, lines) in row.chunks(LINE).zip(bytes.chunks_mut(LINEAR_ROWS * LINE / 2)) {
            pack_group(codes, &mut lines[r * LINE / 2..][..LINE / 2]);
        }
    }
}

/// The rows in blocks of interleaved ones, those that fill up the last tile, too.
fn rows_of_tiles(bytes: &[u8], row_bytes: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(bytes.len());
    for tile in bytes.chunks(LINEAR_ROWS * row_bytes) {
        for r in 0..LINEAR_ROWS {
            tile.chunks(LINE / 2).skip(r).step_by(LINEAR_ROWS).for_each(|line| rows.extend_from_slice(line));
        }
    }
    rows
}

/// The codes of a row in the order of a storage; `bytes` are zeros.
fn pack_row(row: &[i8], format: &Format, storage: Storage, bytes: &mut [u8]) {
    let extent = format.scheme.0[0].extent(row.len());
    match (storage, format.dtype) {
        (Storage::Blocked32, DType::I4) => {
            let groups = row.chunks(extent).zip(bytes.chunks_mut(extent.next_multiple_of(BLOCK) / 2));
            groups.for_each(|(codes, bytes)| pack_group(codes, bytes));
        }
        (Storage::Blocked32, _) => {
            let groups = row.chunks(extent).zip(bytes.chunks_mut(extent.next_multiple_of(BLOCK) * 4));
            groups.for_each(|(codes, bytes)| widen_codes(codes, bytes));
        }
        (_, DType::I4) => {
            let pair = |c: &[i8]| nibbles(c[0], c.get(1).copied().unwrap_or(0));
            row.chunks(2).zip(bytes).for_each(|(codes, byte)| *byte = pair(codes));
        }
        (Storage::Pitched, _) => {
            let groups = row.chunks(extent).zip(bytes.chunks_mut(pitch(extent)));
            groups.for_each(|(codes, bytes)| store(codes, bytes));
        }
        (_, _) => store(row, bytes),
    }
}

fn nibbles(low: i8, high: i8) -> u8 {
    (low as u8 & 15) | (high as u8) << 4
}

/// A group's codes in blocks.
fn pack_group(codes: &[i8], bytes: &mut [u8]) {
    let (whole, rest) = codes.as_chunks::<BLOCK>();
    let (blocks, _) = bytes.as_chunks_mut::<{ BLOCK / 2 }>();
    blocks.iter_mut().zip(whole).for_each(|(block, codes)| *block = pack_block(codes));
    if let Some(block) = blocks.get_mut(whole.len()) {
        let mut codes = [0; BLOCK];
        codes[..rest.len()].copy_from_slice(rest);
        *block = pack_block(&codes);
    }
}

fn pack_block(codes: &[i8; BLOCK]) -> [u8; BLOCK / 2] {
    std::array::from_fn(|j| nibbles(codes[j], codes[j + BLOCK / 2]))
}

fn widen_codes(codes: &[i8], bytes: &mut [u8]) {
    let numbers = bytes.as_chunks_mut().0;
    numbers.iter_mut().zip(codes).for_each(|(to, code)| *to = e4m3::decode(*code as u8).to_le_bytes());
}

fn store(codes: &[i8], bytes: &mut [u8]) {
    bytes.iter_mut().zip(codes).for_each(|(byte, code)| *byte = *code as u8);
}

fn unpack_row(row: &[u8], cols: usize, format: &Format, storage: Storage) -> Vec<i8> {
    let extent = format.scheme.0[0].extent(cols);
    if storage == Storage::Plain {
        let code = |i| if format.dtype == DType::I4 { signed(row[i / 2], i % 2 == 1) } else { row[i] as i8 };
        return (0..cols).map(code).collect();
    }
    let group = if storage == Storage::Pitched { pitch(1) } else { BLOCK };
    let position = |i: usize| i / extent * extent.next_multiple_of(group) + i % extent;
    let code = |i: usize| match format.dtype {
        _ if storage == Storage::Pitched => row[i] as i8,
        DType::I4 => signed(row[i / BLOCK * (BLOCK / 2) + i % (BLOCK / 2)], i % BLOCK >= BLOCK / 2),
        _ => e4m3::encode(f32::from_le_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]]))
            as i8,
    };
    (0..cols).map(position).map(code).collect()
}

fn signed(byte: u8, high: bool) -> i8 {
    (if high { byte } else { byte << 4 }) as i8 >> 4
}

/// The codes that a part holds: the inverse of [`pack_codes`].
pub(super) fn unpack_codes(
    bytes: &[u8],
    part: &Part,
    (rows, cols): (usize, usize),
    format: &Format,
    storage: Storage,
) -> Vec<i8> {
    let row_bytes = part.row_bytes().max(1);
    let in_rows = match storage {
        Storage::Interleaved => Cow::Owned(rows_of_tiles(bytes, row_bytes)),
        _ => Cow::Borrowed(bytes),
    };
    in_rows.chunks(row_bytes).take(rows).flat_map(|row| unpack_row(row, cols, format, storage)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_halves_in_low_and_high_nibbles() {
        let codes: [i8; BLOCK] = std::array::from_fn(|i| (i % 16) as i8 - 8);
        let block = pack_block(&codes);
        assert_eq!(block[0], 0x88);
        assert_eq!(block[15], 0x77);
    }

    #[test]
    fn lines_of_four_rows_take_turns() {
        let tile: Vec<u8> = (0..8).flat_map(|n| [n; LINE / 2]).collect();
        let rows = rows_of_tiles(&tile, LINE);
        let firsts: Vec<u8> = rows.iter().step_by(LINE / 2).copied().collect();
        assert_eq!(firsts, [0, 4, 1, 5, 2, 6, 3, 7]);
        let codes: Vec<i8> = (0..3 * 2 * LINE).map(|n| (n * n % 16) as i8 - 8).collect();
        let mut packed = vec![0; 8 * LINE / 2];
        interleave(&codes, 2 * LINE, &mut packed);
        let mut plain = vec![0; 8 * LINE / 2];
        pack_group(&codes, &mut plain[..6 * LINE / 2]);
        assert_eq!(rows_of_tiles(&packed, LINE), plain);
    }
}
