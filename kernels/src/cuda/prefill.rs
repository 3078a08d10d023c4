//! Causal attention of many queries over FP8 keys and values (FireQ section 6).
//!
//! Probabilities are the interpreter's: `448·2^(s − ⌈max⌉)` in E4M3. Keys come tile by tile, and so the maximum is that of the
//! keys so far. Rounded up to a whole number, it makes no difference: when it rises, sums are rescaled by a power of two, which
//! is exact. What differs is how scores and powers are rounded (f32, and 22 bits): a probability in the middle of two codes
//! may go either way. Sums of products are the tensor cores'; those of probabilities are, too, so that they are of what was
//! rounded. A relative L2 error below 5·10⁻⁴ is what tests hold it to (`tests/tests/gpu_kernels/prefill.rs`).

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text};
use crate::{Swizzle, TensorMapShape};

/// An attention that a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefill {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Channels of a head: 64 or 128.
    pub head: usize,
}

/// How it is pipelined; mirrored by `PrefillTile` in `kernels/cuda/tile/prefill.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefillConfig {
    /// Tiles of keys and of values that are on their way or being multiplied.
    pub stages: usize,
    /// While the softmax of a tile runs, the values of the tile before are multiplied; with 3 instead of 2, the keys of the
    /// next tile are, too.
    pub in_flight: usize,
}

/// Queries of a CTA.
const QUERIES: usize = 128;
/// Keys of a tile.
const KEYS: usize = 128;
/// Two consumer warpgroups, and a producer's.
const THREADS: usize = 384;

/// Where, among the sixteen keys of a block, the values of the n-th lie: a lane that has probabilities of keys 2t, 2t + 1,
/// 2t + 8 and 2t + 9 has them as four neighbours of a product's operand.
pub fn value_position(n: usize) -> usize {
    4 * (n % 8 / 2) + n / 8 * 2 + n % 2
}

impl Prefill {
    fn map(cols: usize, rows: usize, pitch: usize, tile: [usize; 2]) -> TensorMapShape {
        TensorMapShape {
            element: 1,
            sizes: vec![cols as u64, rows as u64],
            strides: vec![pitch as u64],
            tile: tile.map(|n| n as u32).to_vec(),
            swizzle: if tile[0] == 128 { Swizzle::B128 } else { Swizzle::B64 },
        }
    }

    /// The descriptor of the codes of `tokens` queries.
    pub fn q(&self, tokens: usize) -> TensorMapShape {
        let cols = self.heads * self.head;
        Prefill::map(cols, tokens, cols, [self.head, QUERIES])
    }

    /// The descriptor of `keys` keys.
    pub fn k(&self, keys: usize) -> TensorMapShape {
        let cols = self.kv_heads * self.head;
        Prefill::map(cols, keys, cols, [self.head, KEYS])
    }

    /// The descriptor of values, channel by channel: rows of `pitch` positions, a multiple of 16, of which whole blocks of
    /// sixteen hold something, keys that there are none of zeros. Each block is in the order of [`value_position`].
    pub fn v(&self, keys: usize, pitch: usize) -> TensorMapShape {
        Prefill::map(keys.next_multiple_of(16), self.kv_heads * self.head, pitch, [KEYS, self.head])
    }

    /// The unit.
    pub fn unit(&self, config: PrefillConfig) -> Result<Unit, Unsupported> {
        let Prefill { heads, kv_heads, head } = *self;
        let PrefillConfig { stages, in_flight } = config;
        if !matches!(head, 64 | 128) || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Unsupported(format!(
                "{heads} heads of {head} over {kv_heads}: heads of 64 and 128 do"
            )));
        }
        let name = format!("prefill_d{head}_s{stages}_f{in_flight}");
        let shared = QUERIES * head + stages * (KEYS * head + (head + 8) * KEYS) + 8 * (1 + 4 * stages);
        let cta = Cta { threads: THREADS, cluster: 1, dynamic_shared: shared };
        let tile = format!("using Tile = PrefillTile<{head}, {stages}, {in_flight}>;");
        let facts = format!(
            "static_assert(Tile::THREADS == {THREADS} && Tile::SHARED_BYTES == {shared},\n              \
             \"the host sizes launches as the device does\");"
        );
        let names = [tile, facts];
        let parts = Parts { name: &name, kernel: "prefill", names: &names, arguments: "Tile", cta };
        Ok(Unit {
            text: text::<params::Prefill>(&parts),
            shape: format!("{heads} heads of {head} over {kv_heads}"),
            config: format!(
                "{QUERIES} queries, tiles of {KEYS} keys, {stages} stages, {in_flight} tiles in flight"
            ),
            reason: "two warpgroups share keys and values; sums of probabilities come from the tensor cores"
                .into(),
            cta,
            grid: Grid::Queries { tile: QUERIES, heads },
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_block_has_a_place() {
        let mut places: Vec<usize> = (0..16).map(value_position).collect();
        assert_eq!(places[..4], [0, 1, 4, 5]);
        assert_eq!(places[8..10], [2, 3]);
        places.sort_unstable();
        assert_eq!(places, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn heads_that_no_swizzle_spans_are_refused() {
        let config = PrefillConfig { stages: 2, in_flight: 3 };
        let unit = |heads, kv_heads, head| Prefill { heads, kv_heads, head }.unit(config);
        assert!(unit(8, 2, 128).is_ok());
        assert!(unit(8, 2, 80).is_err() && unit(8, 3, 128).is_err() && unit(8, 0, 128).is_err());
    }
}
