//! The paged INT4 cache of keys and values (FireQ section 6): codes two to a byte, a scale for each position and head.
//!
//! A layer has one pool of pages. A page holds [`Pages::keys`] positions of one sequence for every kv head; a sequence's table
//! says which page of the pool its n-th page is. Everything that attention reads together lies together:
//!
//! ```text
//! page | kv head 0 | kv head 1 | …
//! head | tile 0: 64 positions | tile 1 | …
//! tile | codes of keys | 64 scales of keys | codes of values | 64 scales of values
//! ```
//!
//! Scales lie in the order of positions, E4M3 numbers all: those of keys in a byte, those of values as halves (f16), since every
//! lane needs sixteen of them and would have to convert its own. Codes lie in blocks of 64 × 64, one for each 64 channels, in the order in which
//! `wgmma` wants its operand A in registers: rows of a block are positions for keys and channels for values. Behind the
//! last channel of a head the last block has codes that mean nothing.
//!
//! ```text
//! block: 2048 bytes  | warp w of 4 | lane 4·g + t of 32 | four words
//! words of keys      | position p, channels c       | p + 1, c     | p, c + 32     | p + 1, c + 32
//!                    |   p = 16·⌊g/2⌋ + 4·w + 2·(g mod 2), c = 4·t … 4·t + 3 and 16 + 4·t … 16 + 4·t + 3
//! words of values    | channel c, positions p       | c + 8, p     | c, p + 8      | c + 8, p + 8
//!                    |   c = 16·w + g, p = 16·t … 16·t + 7
//!
//! bits of a word     | 31…28 | 27…24 | 23…20 | 19…16 | 15…12 | 11…8 | 7…4 | 3…0 |
//! which of its eight |   7   |   5   |   3   |   1   |   6   |  4   |  2  |  0  |
//! ```
//!
//! Codes of neighbours are sixteen bits apart, where one instruction makes two halves (f16) of them. Positions that keys have
//! as rows are, in the order of rows, those that probabilities have as columns for the product with values: so a lane has
//! sixteen neighbouring positions of values, and a step that appends sixteen positions writes whole 16 bytes.

use std::ops::Range;

use crate::cuda::Unsupported;

/// Positions of a tile.
pub const TILE: usize = 64;
/// Channels of a block.
const BLOCK: usize = 64;
/// Bytes of a block's codes.
const BLOCK_BYTES: usize = BLOCK * TILE / 2;

/// The pages of a layer's cache; mirrored by `PageTile` in `kernels/cuda/tile/page.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head: usize,
    /// Positions of a page: a multiple of 64.
    pub keys: usize,
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows of blocks are positions.
    Keys,
    /// Rows of blocks are channels.
    Values,
}

/// A position of a kv head in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The page.
    pub page: usize,
    /// Which of the page's positions.
    pub position: usize,
    /// The kv head.
    pub kv_head: usize,
}

impl Pages {
    /// An error with the reason where there are no such pages.
    pub fn check(&self) -> Result<(), Unsupported> {
        let Pages { kv_heads, head, keys } = *self;
        if keys == 0 || !keys.is_multiple_of(TILE) {
            return Err(Unsupported(format!("pages of {keys} positions: multiples of {TILE} do")));
        }
        if kv_heads == 0 || head == 0 || head > 256 || !head.is_multiple_of(4) {
            return Err(Unsupported(format!(
                "pages of {kv_heads} heads of {head} channels: multiples of 4 up to 256 do"
            )));
        }
        Ok(())
    }

    fn blocks(&self) -> usize {
        self.head.div_ceil(BLOCK)
    }

    /// Bytes of 64 positions of a head.
    pub fn tile_bytes(&self) -> usize {
        2 * self.blocks() * BLOCK_BYTES + 3 * TILE
    }

    /// Bytes of a page.
    pub fn bytes(&self) -> usize {
        self.kv_heads * (self.keys / TILE) * self.tile_bytes()
    }

    /// Pages that `positions` positions of a sequence take.
    pub fn count(&self, positions: usize) -> usize {
        positions.div_ceil(self.keys)
    }

    /// Where a part of a tile begins: codes, then scales.
    fn part(&self, at: At, part: Part) -> usize {
        let tile = at.kv_head * (self.keys / TILE) + at.position / TILE;
        let behind_keys = self.blocks() * BLOCK_BYTES + TILE;
        at.page * self.bytes() + tile * self.tile_bytes() + if part == Part::Keys { 0 } else { behind_keys }
    }

    /// The bytes of the pool that hold a position's scale.
    pub fn scale(&self, at: At, part: Part) -> Range<usize> {
        let bytes = if part == Part::Keys { 1 } else { 2 };
        let first = self.part(at, part) + self.blocks() * BLOCK_BYTES + at.position % TILE * bytes;
        first..first + bytes
    }

    /// The byte of the pool that holds a code, and whether it is the upper half.
    pub fn code(&self, at: At, part: Part, channel: usize) -> (usize, bool) {
        let (position, inner) = (at.position % TILE, channel % BLOCK);
        let (warp, lane, word, which) = match part {
            Part::Keys => {
                let (warp, g) = (position % 16 / 4, position / 16 * 2 + position % 4 / 2);
                let word = inner / 32 * 2 + position % 2;
                (warp, 4 * g + inner % 16 / 4, word, inner % 32 / 16 * 4 + inner % 4)
            }
            Part::Values => {
                let word = position % 16 / 8 * 2 + inner % 16 / 8;
                (inner / 16, inner % 8 * 4 + position / 16, word, position % 8)
            }
        };
        let nibble = which / 2 + which % 2 * 4;
        let block = self.part(at, part) + channel / BLOCK * BLOCK_BYTES;
        (block + (warp * 32 + lane) * 16 + word * 4 + nibble / 2, nibble % 2 == 1)
    }

    /// Writes the codes of a position's channels, and their scale in E4M3. Codes behind the last channel become zero.
    pub fn write(&self, pool: &mut [u8], at: At, part: Part, codes: &[i8], scale: u8) {
        for channel in 0..self.blocks() * BLOCK {
            let (byte, upper) = self.code(at, part, channel);
            let code = codes.get(channel).copied().unwrap_or(0) as u8 & 15;
            let shift = if upper { 4 } else { 0 };
            pool[byte] = pool[byte] & !(15 << shift) | code << shift;
        }
        let bytes = &mut pool[self.scale(at, part)];
        match part {
            Part::Keys => bytes[0] = scale,
            Part::Values => bytes.copy_from_slice(&half(scale).to_le_bytes()),
        }
    }

    /// The codes of a position's channels, and their scale in E4M3.
    pub fn read(&self, pool: &[u8], at: At, part: Part) -> (Vec<i8>, u8) {
        let code = |channel| {
            let (byte, upper) = self.code(at, part, channel);
            let byte = pool[byte] as i8;
            if upper { byte >> 4 } else { byte << 4 >> 4 }
        };
        let scale = match (part, &pool[self.scale(at, part)]) {
            (Part::Values, [low, high]) => e4m3_of(u16::from_le_bytes([*low, *high])),
            (_, bytes) => bytes[0],
        };
        ((0..self.head).map(code).collect(), scale)
    }
}

/// The half that an E4M3 code is, which is exact.
fn half(code: u8) -> u16 {
    let (sign, magnitude) = (u16::from(code & 0x80) << 8, u16::from(code & 0x7f));
    let bits = match magnitude {
        0x7f => 0x7e00,
        // Halves have a larger bias, by 8; what E4M3 has below its normal numbers are multiples of 2⁻⁹.
        8.. => (magnitude << 7) + (8 << 10),
        0 => 0,
        _ => {
            let exponent = magnitude.ilog2() as u16;
            (exponent + 6) << 10 | (magnitude << (10 - exponent)) & 0x3ff
        }
    };
    sign | bits
}

/// The E4M3 code of a half that is one.
fn e4m3_of(half_bits: u16) -> u8 {
    (0..=u8::MAX).find(|code| half(*code) == half_bits).unwrap_or(0x7f)
}

#[cfg(test)]
mod tests {
    use fireq_ir::e4m3;

    use super::*;

    const PAGES: Pages = Pages { kv_heads: 2, head: 80, keys: 128 };

    #[test]
    fn codes_and_scales_are_where_the_picture_has_them() {
        let pages = Pages { kv_heads: 3, head: 128, keys: 128 };
        assert_eq!((pages.tile_bytes(), pages.bytes()), (8384, 3 * 2 * 8384));
        // Position 64 + 16 + 8 + 2 + 1 of kv head 1 in page 2: warp 2, g = 3, the second of the lane's two keys.
        let at = At { page: 2, position: 64 + 27, kv_head: 1 };
        let tile = 2 * pages.bytes() + (2 + 1) * 8384;
        // Channel 64 + 32 + 16 + 4 + 3: the second block, t = 1, the lane's fourth word, its last code in the uppermost bits.
        assert_eq!(
            pages.code(at, Part::Keys, 64 + 55),
            (tile + 2048 + (2 * 32 + 4 * 3 + 1) * 16 + 12 + 3, true)
        );
        assert_eq!(pages.scale(at, Part::Keys), tile + 4096 + 27..tile + 4096 + 28);
        // Values: channel 64 + 48 + 8 + 5 is warp 3, g = 5, a second row; t = 1; positions from 24 on are third and fourth words.
        let at_values = (tile + 4160 + 2048 + (3 * 32 + 4 * 5 + 1) * 16 + 12 + 2, true);
        assert_eq!(pages.code(at, Part::Values, 64 + 61), at_values);
        let behind = tile + 4160 + 4096 + 2 * 27;
        assert_eq!(pages.scale(at, Part::Values), behind..behind + 2);
    }

    #[test]
    fn every_code_and_scale_has_a_place_of_its_own() {
        let mut taken = vec![0u8; 2 * PAGES.bytes()];
        let heads = (0..2 * 2).map(|i| (i / 2, i % 2));
        for (page, kv_head) in heads {
            for position in 0..PAGES.keys {
                for part in [Part::Keys, Part::Values] {
                    let at = At { page, position, kv_head };
                    for channel in 0..PAGES.head {
                        let (byte, upper) = PAGES.code(at, part, channel);
                        let bits = if upper { 0xf0 } else { 0x0f };
                        assert_eq!(taken[byte] & bits, 0, "{at:?}, {part:?}, channel {channel}");
                        taken[byte] |= bits;
                    }
                    let scale = &mut taken[PAGES.scale(at, part)];
                    assert!(scale.iter().all(|byte| *byte == 0), "{at:?}, {part:?}");
                    scale.fill(0xff);
                }
            }
        }
        // What is left are the codes behind the last channel.
        let free: u32 = taken.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(free as usize, 2 * 2 * 128 * 2 * (128 - 80) * 4);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_changes() {
        let codes = |seed: usize| (0..80).map(|i| ((i * 7 + seed * 5) % 16) as i8 - 8).collect::<Vec<_>>();
        let mut pool = vec![0x5a; PAGES.bytes()];
        for position in 0..128 {
            let at = At { page: 0, position, kv_head: position % 2 };
            PAGES.write(&mut pool, at, Part::Keys, &codes(position), position as u8);
            PAGES.write(&mut pool, at, Part::Values, &codes(position + 3), position as u8 + 100);
        }
        for position in 0..128 {
            let at = At { page: 0, position, kv_head: position % 2 };
            assert_eq!(PAGES.read(&pool, at, Part::Keys), (codes(position), position as u8));
            assert_eq!(PAGES.read(&pool, at, Part::Values), (codes(position + 3), position as u8 + 100));
            let other = PAGES.read(&pool, At { kv_head: 1 - position % 2, ..at }, Part::Values);
            assert!(other.0.iter().all(|code| [-6, 5].contains(code)), "untouched");
        }
    }

    #[test]
    fn halves_are_the_numbers_of_e4m3_codes() {
        for code in (0..=u8::MAX).filter(|code| code & 0x7f != 0x7f) {
            let bits = half(code);
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3ff));
            let size = if exponent == 0 {
                fraction * 2f32.powi(-24)
            } else {
                (1024.0 + fraction) * 2f32.powi(exponent - 25)
            };
            let number = if bits >> 15 == 1 { -size } else { size };
            assert_eq!(number.to_bits(), e4m3::decode(code).to_bits(), "{code:#x}");
            assert_eq!(e4m3_of(bits), code);
        }
        assert!(half(0x7f) & 0x7c00 == 0x7c00 && half(0x7f) & 0x3ff != 0, "NaN stays one");
    }

    #[test]
    fn sizes_that_no_page_has_are_refused() {
        let refused = |pages: Pages| pages.check().unwrap_err().to_string();
        assert!(refused(Pages { keys: 96, ..PAGES }).contains("pages of 96 positions"));
        assert!(refused(Pages { head: 260, ..PAGES }).contains("260 channels"));
        assert!(PAGES.check().is_ok() && PAGES.count(129) == 2);
    }
}
