//! Sequences of a step of prefill attention, and the CTAs that their queries are cut into.
//!
//! Sequences of a batch have their queries in rows of one tensor, their keys and values in one workspace.

use std::cmp::Reverse;

use super::params::Queries;
use super::prefill::{KEYS, Prefill, QUERIES};

/// A sequence of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The row of its first query.
    pub query: usize,
    /// Its queries.
    pub tokens: usize,
    /// Keys before the first query's own.
    pub past: usize,
    /// The position in the workspace of its first key: a multiple of 16. Positions that no sequence has hold numbers, zeros at
    /// first: they are multiplied by zero.
    pub key: usize,
}

/// The tiles of a batch of causal attention, those with the most keys first. A launch has as many times [`QUERIES`] rows.
///
/// ```
/// use fireq_kernels::cuda::{Sequence, prefill_tiles};
///
/// let short = Sequence { tokens: 5, ..Sequence::default() };
/// let chunk = Sequence { query: 5, tokens: 200, past: 1000, key: 16 };
/// let tiles = prefill_tiles(&[short, chunk]);
/// assert_eq!(tiles.iter().map(|tile| tile.first).collect::<Vec<_>>(), [5 + 128, 5, 0]);
/// assert_eq!((tiles[0].count, tiles[0].past, tiles[0].key), (200 - 128, 1000 + 128, 16));
/// ```
pub fn prefill_tiles(sequences: &[Sequence]) -> Vec<Queries> {
    tiles(sequences, true)
}

impl Prefill {
    /// [`prefill_tiles`] of this attention; where it is not causal, each sees all keys of its sequence.
    pub fn tiles(&self, sequences: &[Sequence]) -> Vec<Queries> {
        tiles(sequences, self.causal)
    }
}

fn tiles(sequences: &[Sequence], causal: bool) -> Vec<Queries> {
    let tiles_of = |sequence: &Sequence| {
        let Sequence { query, tokens, past, key } = *sequence;
        (0..tokens).step_by(QUERIES).map(move |from| {
            let count = (tokens - from).min(QUERIES);
            let before = past + if causal { from } else { tokens - count };
            let [first, count, past, key] = [query + from, count, before, key].map(|n| n as u32);
            Queries { first, count, past, key }
        })
    };
    let mut tiles: Vec<Queries> = sequences.iter().flat_map(tiles_of).collect();
    tiles.sort_by_key(|tile| Reverse(key_tiles(tile)));
    tiles
}

/// Tiles of keys that a CTA reads.
pub(super) fn key_tiles(queries: &Queries) -> usize {
    (queries.past as usize + queries.count as usize).div_ceil(KEYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_see_all_keys_where_attention_is_not_causal() {
        let of = Prefill { heads: 1, kv_heads: 1, head: 64, output: fireq_ir::DType::F32, causal: false };
        let tiles = of.tiles(&[Sequence { query: 7, tokens: 300, past: 20, key: 16 }]);
        let seen = tiles.iter().map(|tile| (tile.first, tile.count, tile.past + tile.count, tile.key));
        assert_eq!(seen.collect::<Vec<_>>(), [(7, 128, 320, 16), (135, 128, 320, 16), (263, 44, 320, 16)]);
    }

    #[test]
    fn every_query_is_in_one_tile_and_tiles_have_fewer_and_fewer_keys() {
        let lengths = [(1, 0), (300, 5000), (128, 0), (129, 127), (0, 9), (700, 13)];
        let mut query = 0;
        let sequences = lengths.map(|(tokens, past)| {
            let sequence = Sequence { query, tokens, past, key: 16 * query };
            query += tokens;
            sequence
        });
        let tiles = prefill_tiles(&sequences);
        assert!(tiles.windows(2).all(|pair| key_tiles(&pair[0]) >= key_tiles(&pair[1])));
        let mut seen = vec![None; query];
        for tile in &tiles {
            for n in 0..tile.count {
                let before = seen[(tile.first + n) as usize].replace((tile.past + n, tile.key));
                assert_eq!(before, None, "row {} is in two tiles", tile.first + n);
            }
        }
        let expected =
            sequences.iter().flat_map(|s| (0..s.tokens).map(|n| ((s.past + n) as u32, s.key as u32)));
        assert_eq!(seen, expected.map(Some).collect::<Vec<_>>());
    }
}
