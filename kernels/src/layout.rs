//! Layouts of quantized codes.
//!
//! [`Storage::Plain`]: rows of codes two to a byte, low nibble first; a row of odd length ends in half a byte.
//!
//! ```text
//! byte    0       1       2
//! high | q1    | q3    | q5    | ...
//! low  | q0    | q2    | q4    | ...
//! ```
//!
//! [`Storage::Blocked32`]: blocks of 32 codes in 16 bytes. Loading 16 bytes and taking the low, then the high nibbles
//! gives two vectors of 16 neighbouring codes, with no shuffle.
//!
//! ```text
//! byte    0       1       2             15
//! high | q16   | q17   | q18   | ... | q31   |    second vector
//! low  | q0    | q1    | q2    | ... | q15   |    first vector
//! ```
//!
//! Every scale's group is padded with zero codes to whole blocks, so that a block has one scale. A row of 172 codes in
//! groups of 128 takes 6 blocks of 16 bytes:
//!
//! ```text
//! | block 0 | block 1 | block 2 | block 3 | block 4 | block 5: 12 codes, 20 zeros |
//! |------------- group 0 (128) -----------|----------- group 1 (44) ---------------|
//! ```
//!
//! [`Storage::Interleaved`], for weights of CPUs whose groups are whole lines of four blocks: of four rows the first line
//! each, then the second, so that a kernel of four channels reads one stream of memory.
//!
//! ```text
//! | row 0, q0..q127 | row 1, q0..q127 | row 2, q0..q127 | row 3, q0..q127 | row 0, q128..q255 | ...
//! ```
//!
//! E4M3 codes of activations are blocked as the f32 numbers they stand for; those of weights are plain. On GPUs activations are
//! [`Storage::Pitched`]: [`pitch`] says how far apart rows are, to the kernels that write them and to descriptors alike.
//!
//! ```
//! use fireq_ir::{DType, Format, Shape, Type};
//! use fireq_kernels::layout::{Storage, parts};
//!
//! let ty = Type::plain(DType::BF16, Shape::matrix(4096, 172)).with_format(&Format::weight(128));
//! let row_bytes = |storage| parts(&ty, storage).unwrap()[0].row_bytes();
//! assert_eq!(row_bytes(Storage::Plain), 86);
//! assert_eq!(row_bytes(Storage::Blocked32), 6 * 16);
//! ```

pub use fireq_ir::plan::{BLOCK, Part, Storage, pack_tensor, parts, pitch, unpack};

use fireq_ir::Type;

/// The parts of a quantized weight in another layout, in the order of [`parts`]; `arrays` are its parts in `from`.
/// `None` when their sizes are not those of `ty`, or `ty` has no fixed shape or no codes.
pub fn repack(ty: &Type, arrays: &[&[u8]], from: Storage, to: Storage) -> Option<Vec<Vec<u8>>> {
    if !ty.dtype.is_code() {
        return None;
    }
    let packed = pack_tensor(&unpack(ty, from, arrays)?, to).ok()?;
    Some(packed.into_iter().map(|(_, bytes)| bytes.into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fireq_ir::interp::Tensor;
    use fireq_ir::{DType, Format, Shape};

    const ROWS: usize = 3;

    fn weight(cols: usize, group: usize) -> Type {
        Type::plain(DType::F32, Shape::matrix(ROWS, cols)).with_format(&Format::weight(group))
    }

    fn packed(ty: &Type, storage: Storage) -> Vec<Vec<u8>> {
        let cols = ty.shape.cols().fixed().unwrap();
        let values = (0..ROWS * cols).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let parts = pack_tensor(&Tensor::filled(ty, values), storage).unwrap();
        parts.into_iter().map(|(_, bytes)| bytes.into_owned()).collect()
    }

    fn slices(arrays: &[Vec<u8>]) -> Vec<&[u8]> {
        arrays.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn plain_and_blocked_are_inverses_for_odd_lengths_and_short_last_groups() {
        for group in [64, 128] {
            for cols in [1, 2, 31, 32, 33, 64, 127, 128, 172, 257, 576] {
                let ty = weight(cols, group);
                let (plain, blocked) = (packed(&ty, Storage::Plain), packed(&ty, Storage::Blocked32));
                let there = repack(&ty, &slices(&plain), Storage::Plain, Storage::Blocked32).unwrap();
                assert_eq!(there, blocked, "{ty}");
                let back = repack(&ty, &slices(&there), Storage::Blocked32, Storage::Plain).unwrap();
                assert_eq!(back, plain, "{ty}");
            }
        }
    }

    #[test]
    fn every_code_is_where_the_picture_has_it() {
        let (cols, group) = (172, 128);
        let ty = weight(cols, group);
        let (plain, blocked) = (packed(&ty, Storage::Plain), packed(&ty, Storage::Blocked32));
        let nibble = |byte: u8, high: bool| if high { byte >> 4 } else { byte & 15 };
        for row in 0..ROWS {
            for k in 0..cols {
                let code = nibble(plain[0][row * 86 + k / 2], k % 2 == 1);
                let (block, within) = (k / group * 4 + k % group / 32, k % 32);
                let byte = blocked[0][row * 96 + block * 16 + within % 16];
                assert_eq!(nibble(byte, within >= 16), code, "row {row}, code {k}");
            }
            let padding = &blocked[0][row * 96 + 5 * 16..][..16];
            assert!(padding[12..].iter().all(|b| *b == 0) && padding.iter().all(|b| b >> 4 == 0));
        }
    }

    #[test]
    fn lines_of_four_rows_follow_one_another() {
        let ty = weight(256, 128);
        let [blocked, interleaved] = [Storage::Blocked32, Storage::Interleaved].map(|s| packed(&ty, s));
        for row in 0..ROWS {
            for line in 0..2 {
                let there = &interleaved[0][(line * 4 + row) * 64..][..64];
                assert_eq!(there, &blocked[0][row * 128 + line * 64..][..64], "row {row}, line {line}");
            }
        }
        assert_eq!(interleaved[0].len(), 4 * 128, "a row of zeros fills the tile");
        assert!(parts(&weight(172, 128), Storage::Interleaved).is_none());
        assert!(parts(&weight(256, 64), Storage::Interleaved).is_none());
    }

    #[test]
    fn wrong_sizes_and_numbers_are_refused() {
        let ty = weight(64, 64);
        let mut plain = packed(&ty, Storage::Plain);
        assert!(repack(&ty, &slices(&plain[..2]), Storage::Plain, Storage::Blocked32).is_none());
        plain[0].pop();
        assert!(repack(&ty, &slices(&plain), Storage::Plain, Storage::Blocked32).is_none());
        let numbers = Type::f32(3, 64);
        assert!(repack(&numbers, &[&[0; 3 * 64 * 4]], Storage::Plain, Storage::Plain).is_none());
    }
}
