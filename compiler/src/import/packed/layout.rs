//! Where the formats put codes, zero points and scales.

use std::ops::Range;

use fireq_ir::{ConstData, DType};
use half::{bf16, f16};

/// Codes of a weight `[N,K]`, several to a word of 32 bits.
pub(super) enum Codes {
    /// Words `[K·bits/32, N]`, each of neighbouring channels, the first in the lowest bits.
    Columns(ConstData),
    /// Words `[N, ⌈K·bits/32⌉]`, each of neighbouring channels, the first in the lowest bits.
    Rows(ConstData),
    /// Words `[K, N/8]`, each of eight neighbouring rows in the order of [`AWQ`].
    Awq(ConstData),
}

/// Zero points.
pub(super) enum Zeros {
    /// Half of what codes reach, everywhere.
    Middle,
    /// Words `[G, N·bits/32]`, to which a number is added for what they mean.
    Columns { words: ConstData, more: u32 },
    /// Words `[⌈N·bits/32⌉, G]`.
    Rows(ConstData),
    /// Words `[G, N/8]` in the order of [`AWQ`].
    Awq(ConstData),
}

/// Scales; that of row `n` and group `g` is the element `n·row + g·group`.
pub(super) struct Scales {
    pub data: ConstData,
    pub dtype: DType,
    pub row: usize,
    pub group: usize,
}

/// The row of each four bits of a word, lowest first.
const AWQ: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// The four bits of each row of a word.
const AWQ_PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

impl Codes {
    pub fn data(&self) -> &ConstData {
        match self {
            Codes::Columns(data) | Codes::Rows(data) | Codes::Awq(data) => data,
        }
    }

    /// Some rows of a weight of `all` rows, in words of neighbouring channels, `width` to a row, whatever the order in the file.
    pub fn words(&self, rows: &Range<usize>, all: usize, width: usize) -> Vec<u32> {
        let words = words_of(self.data());
        let mut out = vec![0; rows.len() * width];
        match self {
            Codes::Rows(_) => {
                let from = &words[rows.start * width..rows.end * width];
                out.iter_mut().zip(from).for_each(|(to, word)| *to = u32::from_le_bytes(*word));
            }
            Codes::Columns(_) => {
                for (k, line) in words.chunks_exact(all).enumerate() {
                    let places = out.iter_mut().skip(k).step_by(width);
                    places.zip(&line[rows.clone()]).for_each(|(to, word)| *to = u32::from_le_bytes(*word));
                }
            }
            Codes::Awq(_) => {
                for (k, line) in words.chunks_exact(all / 8).enumerate() {
                    let (first, end) = (rows.start / 8, rows.end.div_ceil(8));
                    for (at, word) in line.iter().enumerate().take(end).skip(first) {
                        let word = u32::from_le_bytes(*word);
                        for (place, row) in AWQ.iter().map(|row| at * 8 + row).enumerate() {
                            if rows.contains(&row) {
                                let code = word >> (4 * place) & 15;
                                out[(row - rows.start) * width + k / 8] |= code << (4 * (k % 8));
                            }
                        }
                    }
                }
            }
        }
        out
    }
}

impl Zeros {
    pub fn data(&self) -> Option<&ConstData> {
        match self {
            Zeros::Middle => None,
            Zeros::Columns { words: data, .. } | Zeros::Rows(data) | Zeros::Awq(data) => Some(data),
        }
    }

    /// Whether all of them are half of what codes reach.
    pub fn are_middle(&self, bits: u32) -> bool {
        let middle = (0..32 / bits).fold(0, |word, n| word | 1 << (bits * n + bits - 1));
        self.data().is_none_or(|data| words_of(data).iter().all(|word| self.meant(*word) == middle))
    }

    /// What a word means. Carries go on: what was taken off whole words comes back that way.
    fn meant(&self, word: [u8; 4]) -> u32 {
        let more = if let Zeros::Columns { more, .. } = self { *more } else { 0 };
        u32::from_le_bytes(word).wrapping_add(more)
    }

    /// The zero points of the `groups` groups of a row of `all`.
    pub fn of_row(&self, row: usize, all: usize, groups: usize, bits: u32) -> Vec<i32> {
        let (words, per) = (self.data().map(words_of).unwrap_or_default(), 32 / bits as usize);
        let field =
            |at: usize, place: usize| self.meant(words[at]) >> (bits as usize * place) & ((1 << bits) - 1);
        let zero = |group: usize| match self {
            Zeros::Middle => 1 << (bits - 1),
            Zeros::Columns { .. } => field(group * (all / per) + row / per, row % per),
            Zeros::Rows(_) => field(row / per * groups + group, row % per),
            Zeros::Awq(_) => field(group * (all / 8) + row / 8, AWQ_PLACES[row % 8]),
        };
        (0..groups).map(|group| zero(group) as i32).collect()
    }
}

impl Scales {
    /// The scales of the `groups` groups of a row.
    pub fn of_row(&self, row: usize, groups: usize) -> Vec<f32> {
        let bytes = self.data.bytes().unwrap_or_default();
        (0..groups).map(|group| number(bytes, self.dtype, row * self.row + group * self.group)).collect()
    }
}

fn words_of(data: &ConstData) -> &[[u8; 4]] {
    data.bytes().unwrap_or_default().as_chunks().0
}

fn number(bytes: &[u8], dtype: DType, at: usize) -> f32 {
    let half = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
    match dtype {
        DType::F16 => f16::from_bits(half(at)).to_f32(),
        DType::BF16 => bf16::from_bits(half(at)).to_f32(),
        _ => f32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]]),
    }
}
