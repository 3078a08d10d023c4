//! Among how many CTAs the keys of decode attention are split: as a model of the machine finds it quickest.
//!
//! Too few leave SMs without work, too many have beginnings and ends that nothing hides. **Constants are datasheet values,
//! counts in machine code and estimates; nothing here has been measured yet.**
//!
//! ```
//! use fireq_kernels::cuda::DecodeAttention;
//!
//! let llama = DecodeAttention { heads: 32, kv_heads: 8, head: 128, page: 64 };
//! assert_eq!(llama.split(&[100; 64]).parts, 1);
//! assert!(llama.split(&[32768]).parts > 16);
//! ```

use serde::{Deserialize, Serialize};

use super::cost::StepInstructions;
use crate::pages::TILE;

/// Attention of single tokens that a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeAttention {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head: usize,
    /// Positions of a page.
    pub page: usize,
}

/// How keys are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Tiles of 64 keys of a part, at most.
    pub tiles: usize,
    /// Parts of the token with the most keys: CTAs in z. With 1 there is nothing to combine.
    pub parts: usize,
}

/// Streaming multiprocessors (H100 and H200, SXM).
const SMS: usize = 132;
/// Bytes that an SM gets from memory in a cycle when all read: 4.8 TB/s among 132 at 1.83 GHz.
const SM_BYTES: f64 = 19.9;
/// CTAs of an SM, by their shared memory.
const AT_ONCE: usize = 3;
/// Bytes of the tiles that a CTA has room for: three CTAs share an SM's 228 KiB.
pub(super) const STAGES_BYTES: usize = 68 << 10;
/// Cycles before a CTA's first tile, from launch over tables and pages to shared memory, and behind its last: an estimate.
const ENDS: f64 = 3000.0;
/// Cycles of a tile beside its instructions: its share of what a warp waits for in a step, barriers, products and exponentials.
/// An estimate.
const EXPOSED: f64 = 200.0;
/// Cycles of the second launch, without its bytes: an estimate.
const COMBINE: f64 = 4000.0;
/// The most parts: a warp reads them one after the other.
const MOST_PARTS: usize = 128;
/// Splits this close to the quickest are as good: the one with the fewest parts is taken.
const AS_GOOD: f64 = 1.02;

impl DecodeAttention {
    /// Instructions of a consumer warp for a tile of 64 keys, in machine code: 15 for each of a lane's words of eight codes, of
    /// which blocks of keys and of values have four each; beside them scales, products and barriers, and a share of a softmax.
    /// Of the fifteen five are integer, and four conversions, which are taken to go at the same rate.
    pub fn tile_instructions(&self) -> StepInstructions {
        let (blocks, columns) = (self.head.div_ceil(64), self.queries());
        let softmax = (84 + 13 * columns / 2) / self.step();
        StepInstructions {
            issued: blocks * (2 * 4 * 15 + 12) + 25 + 7 * columns / 4 + softmax,
            integer: blocks * (2 * 4 * 9) + 27 + columns,
        }
    }

    /// How the keys of tokens are split that see this many of them.
    pub fn split(&self, keys: &[usize]) -> Split {
        let most = keys.iter().map(|keys| keys.div_ceil(TILE)).max().unwrap_or(1).max(1);
        let each = (1..=most.min(MOST_PARTS)).map(|parts| {
            let tiles = most.div_ceil(parts);
            Split { tiles, parts: most.div_ceil(tiles) }
        });
        let all: Vec<(Split, f64)> = each.map(|split| (split, self.cycles(split, keys))).collect();
        let least = all.iter().map(|(_, cycles)| *cycles).fold(f64::INFINITY, f64::min);
        let found = all.into_iter().find(|(_, cycles)| *cycles <= least * AS_GOOD);
        found.map_or(Split { tiles: most, parts: 1 }, |(split, _)| split)
    }

    /// Cycles of the launches: CTAs of the SM that has the most of them, as if each were of whole parts.
    pub fn cycles(&self, split: Split, keys: &[usize]) -> f64 {
        let parts = |keys: &usize| keys.div_ceil(TILE).div_ceil(split.tiles);
        let ctas = self.kv_heads * keys.iter().map(parts).sum::<usize>();
        let of_an_sm = ctas.div_ceil(SMS);
        let (waves, rest) = (of_an_sm / AT_ONCE, of_an_sm % AT_ONCE);
        let tile_bytes = self.pages().tile_bytes();
        let wave = |ctas: usize| {
            let busy = self.tile_cycles();
            let together = ctas as f64 * busy.max(tile_bytes as f64 / SM_BYTES);
            if ctas > 0 { ENDS + split.tiles as f64 * together.max(busy + EXPOSED) } else { 0.0 }
        };
        let sums = (ctas * self.heads / self.kv_heads * self.head * 4) as f64;
        let combine = if split.parts > 1 { COMBINE + 2.0 * sums / (SMS as f64 * SM_BYTES) } else { 0.0 };
        waves as f64 * wave(AT_ONCE) + wave(rest) + combine
    }

    /// Cycles in which a scheduler does a tile of one warp.
    fn tile_cycles(&self) -> f64 {
        let StepInstructions { issued, integer } = self.tile_instructions();
        issued.max(2 * integer) as f64
    }

    /// Why it is made like this, in a sentence.
    pub(super) fn reason(&self) -> String {
        let bytes = self.pages().tile_bytes() / TILE;
        format!(
            "bound by memory and decoding: {bytes} bytes and, by the unmeasured cost model, {:.1} cycles of its schedulers for each key of a kv head; splits of keys are chosen for every step",
            self.tile_cycles() / TILE as f64
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: DecodeAttention = DecodeAttention { heads: 32, kv_heads: 8, head: 128, page: 64 };

    #[test]
    fn few_tokens_are_split_and_many_are_not() {
        let parts = |tokens: usize, keys: usize| LLAMA.split(&vec![keys; tokens]).parts;
        assert_eq!([parts(1, 1), parts(1, 64), parts(64, 1000)], [1, 1, 1]);
        let one = [1024, 8192, 32768].map(|keys| parts(1, keys));
        assert!(one[0] > 1 && one.is_sorted() && one[2] * 8 >= 132, "{one:?}");
        let batches = [1, 4, 16, 64].map(|tokens| parts(tokens, 8192));
        assert!(batches.is_sorted_by(|a, b| a >= b), "{batches:?}");
    }

    #[test]
    fn parts_cover_all_keys_and_none_is_empty() {
        for keys in [1, 63, 64, 65, 700, 5000, 40000] {
            for tokens in [1, 3, 17] {
                let Split { tiles, parts } = LLAMA.split(&vec![keys; tokens]);
                let most = keys.div_ceil(TILE);
                assert!(tiles * parts >= most && tiles * (parts - 1) < most, "{keys} keys: {tiles}, {parts}");
            }
        }
        assert_eq!(LLAMA.split(&[]), Split { tiles: 1, parts: 1 });
    }

    #[test]
    fn a_long_sequence_among_short_ones_is_split() {
        let mut keys = vec![100; 15];
        keys.push(32768);
        let Split { tiles, parts } = LLAMA.split(&keys);
        assert!(parts > 8 && tiles >= 2, "{tiles} tiles, {parts} parts");
    }

    #[test]
    fn a_split_is_never_slower_than_none_by_the_model() {
        for (tokens, keys) in [(1, 300), (1, 9000), (8, 2000), (64, 32768)] {
            let keys = vec![keys; tokens];
            let split = LLAMA.split(&keys);
            let none = Split { tiles: keys[0].div_ceil(TILE), parts: 1 };
            assert!(LLAMA.cycles(split, &keys) <= AS_GOOD * LLAMA.cycles(none, &keys), "{split:?}");
        }
    }
}
