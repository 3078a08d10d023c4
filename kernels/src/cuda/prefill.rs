//! Attention of many queries over FP8 keys and values (FireQ section 6), causal or of all keys.
//!
//! Probabilities are the interpreter's: `448·2^(s − ⌈max⌉)` in E4M3. Keys come tile by tile, and so the maximum is that of the
//! keys so far. Rounded up to a whole number, it makes no difference: when it rises, sums are rescaled by a power of two, which
//! is exact. What differs is how scores and powers are rounded (f32, and 22 bits): a probability in the middle of two codes
//! may go either way. Sums of products are the tensor cores'; those of probabilities are, too, so that they are of what was
//! rounded; where a row is long they are promoted ([`super::cost_prefill::SHORT_ROW`]). A relative L2 error below 5·10⁻⁴ is
//! what tests hold it to (`tests/tests/gpu_kernels/prefill.rs`).
//!
//! A CTA has [`QUERIES`] queries of a [`Sequence`](super::Sequence); [`prefill_tiles`](super::prefill_tiles) puts those with the
//! most keys first. A prompt in chunks is one with a past.
//!
//! **What comes out** is f32 or bf16. The scale under which the o projection takes a token in FP8 is that of the largest number
//! of all heads, and a CTA has one head: the quantizer of rows behind finds it, for 4 bytes written and 4 read of each number
//! (2 and 2 in bf16) and 1 byte of its code.

use fireq_ir::DType;

use super::linear::MOST_SHARED;
use super::params::{self, Queries};
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, float_name, layout, text};
use crate::layout::pitch;
use crate::{Swizzle, TensorMapShape};

/// An attention that a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefill {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Channels of a head: a multiple of 4, for bf16 of 8, up to 256. Copies fill it up with zeros to 64, 128 or 256, and as
    /// many are multiplied.
    pub head: usize,
    /// What is written: f32 or bf16.
    pub output: DType,
    /// A query sees the keys up to its own, as in all models; otherwise all of its sequence. Only what is masked differs.
    pub causal: bool,
}

/// How it is pipelined; mirrored by `PrefillTile` in `kernels/cuda/tile/prefill.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefillConfig {
    /// Tiles of keys and of values that are on their way or being multiplied.
    pub stages: usize,
    /// While the softmax of a tile runs, the values of the tile before are multiplied; with 3 instead of 2, the keys of the
    /// next tile are, too. With 1, nothing of the same warpgroup is, and sums of a panel of values at a time are promoted: what
    /// heads of more than 128 channels have registers for.
    pub in_flight: usize,
    /// Sums of a tile's products are added to others in f32 registers, since those of tensor cores are reported to keep 14
    /// bits only.
    pub promotes: bool,
    /// CTAs that share keys and values: two, of neighbouring query heads of one kv head, or one. Each asks the L2 cache for
    /// half of a tile, and the copy goes to both.
    pub cluster: usize,
}

/// Queries of a CTA.
pub const QUERIES: usize = 128;
/// Keys of a tile.
pub const KEYS: usize = 128;
/// Two consumer warpgroups, and a producer's.
const THREADS: usize = 384;
/// Registers of a consumer's thread.
const REGISTERS: usize = 240;

/// Those of them that addresses, maxima and factors take: with fewer, registers spill.
const OTHER_REGISTERS: usize = 24;

/// Where, among the sixteen keys of a block, the values of the n-th lie: a lane that has probabilities of keys 2t, 2t + 1,
/// 2t + 8 and 2t + 9 has them as four neighbours of a product's operand.
pub fn value_position(n: usize) -> usize {
    4 * (n % 8 / 2) + n / 8 * 2 + n % 2
}

impl PrefillConfig {
    /// Registers of a consumer's thread for sums, scores and probabilities.
    pub(super) fn registers(&self, wide: usize) -> usize {
        let sums = wide / 2 + 4;
        let probabilities = KEYS / 8;
        if self.in_flight == 1 {
            // Scores, or a panel's sums.
            return sums + (KEYS / 2).max(wide.min(128) / 2 + 4) + probabilities;
        }
        sums * (1 + usize::from(self.promotes)) + self.in_flight.saturating_sub(1) * KEYS / 2 + probabilities
    }

    /// Whether they suffice for heads of this many channels, filled up.
    pub(super) fn finds_registers(&self, wide: usize) -> bool {
        (self.in_flight > 1 || self.promotes) && self.registers(wide) <= REGISTERS - OTHER_REGISTERS
    }

    /// Bytes of shared memory of a CTA for heads of this many channels, filled up.
    pub fn shared(&self, wide: usize) -> usize {
        QUERIES * wide + self.stages * (KEYS * wide + (wide + 8) * KEYS) + 8 * (1 + 4 * self.stages)
    }
}

impl Prefill {
    /// Channels of a head, filled up.
    pub fn wide(&self) -> usize {
        [64, 128].into_iter().find(|wide| self.head <= *wide).unwrap_or(256)
    }

    fn rows(&self, heads: usize, rows: usize, tile: usize) -> TensorMapShape {
        let panel = self.wide().min(128);
        TensorMapShape {
            element: 1,
            sizes: [self.head, heads, rows].map(|n| n as u64).to_vec(),
            strides: [pitch(self.head), heads * pitch(self.head)].map(|n| n as u64).to_vec(),
            tile: [panel, 1, tile].map(|n| n as u32).to_vec(),
            swizzle: if panel == 128 { Swizzle::B128 } else { Swizzle::B64 },
        }
    }

    /// The descriptor of the codes of `tokens` queries.
    pub fn q(&self, tokens: usize) -> TensorMapShape {
        self.rows(self.heads, tokens, QUERIES)
    }

    /// The descriptor of `positions` keys.
    pub fn k(&self, positions: usize, config: &PrefillConfig) -> TensorMapShape {
        self.rows(self.kv_heads, positions, KEYS / config.cluster)
    }

    /// The descriptor of values, channel by channel: rows of `pitch` positions, a multiple of 16, of which whole blocks of
    /// sixteen hold something, keys that there are none of zeros. Each block is in the order of [`value_position`].
    pub fn v(&self, positions: usize, pitch: usize, config: &PrefillConfig) -> TensorMapShape {
        let sizes = [positions.next_multiple_of(16), self.head, self.kv_heads];
        TensorMapShape {
            element: 1,
            sizes: sizes.map(|n| n as u64).to_vec(),
            strides: [pitch, self.head * pitch].map(|n| n as u64).to_vec(),
            tile: [KEYS, self.wide() / config.cluster, 1].map(|n| n as u32).to_vec(),
            swizzle: Swizzle::B128,
        }
    }

    /// Why there is no unit for these sizes.
    fn check(&self, config: PrefillConfig) -> Result<(), Unsupported> {
        let Prefill { heads, kv_heads, head, output, .. } = *self;
        let PrefillConfig { stages, in_flight, promotes, cluster } = config;
        let fail =
            |reason: String| Err(Unsupported(format!("{heads} heads of {head} over {kv_heads}: {reason}")));
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return fail("heads of keys have as many query heads each".into());
        }
        let multiple = if output == DType::BF16 { 8 } else { 4 };
        if !head.is_multiple_of(multiple) || !(1..=256).contains(&head) {
            return fail("lanes store 16 bytes, and copies have at most 256 rows of values".into());
        }
        if !matches!(cluster, 1 | 2) || !(heads / kv_heads).is_multiple_of(cluster) {
            return fail(format!("{cluster} neighbouring query heads do not share a kv head"));
        }
        let taken = config.registers(self.wide());
        if !matches!(in_flight, 1..=3) || !config.finds_registers(self.wide()) {
            return fail(format!(
                "with {in_flight} tiles in flight{} sums, scores and probabilities take {taken} of {REGISTERS} registers",
                if promotes { ", promoted," } else { "" }
            ));
        }
        let shared = config.shared(self.wide());
        if stages < 2 || shared > MOST_SHARED {
            return fail(format!("{stages} stages take {shared} of {MOST_SHARED} bytes of shared memory"));
        }
        Ok(())
    }

    /// The unit; why it is configured like this goes with it.
    pub fn unit(&self, config: PrefillConfig, reason: String) -> Result<Unit, Unsupported> {
        self.check(config)?;
        let Prefill { heads, kv_heads, head, output, causal } = *self;
        let PrefillConfig { stages, in_flight, promotes, cluster } = config;
        let out = float_name(output)?;
        let (promoted, pair) = (if promotes { "_p" } else { "" }, if cluster > 1 { "_c2" } else { "" });
        let full = if causal { "" } else { "_full" };
        let name = format!("prefill_d{head}_{output}_s{stages}_f{in_flight}{promoted}{pair}{full}");
        let shared = config.shared(self.wide());
        let cta = Cta { threads: THREADS, cluster, dynamic_shared: shared };
        let tile = format!(
            "using Tile = PrefillTile<{head}, {stages}, {in_flight}, {promotes}, {cluster}, {causal}>;"
        );
        let queries =
            format!("using Queries = prefill::Queries;\n{}", layout::<Queries>("Queries").trim_end());
        let facts = format!(
            "static_assert(Tile::THREADS == {THREADS} && Tile::SHARED_BYTES == {shared},\n              \
             \"the host sizes launches as the device does\");"
        );
        let (names, arguments) = ([queries, tile, facts], format!("Tile, {out}"));
        let parts = Parts { name: &name, kernel: "prefill", names: &names, arguments: &arguments, cta };
        Ok(Unit {
            text: text::<params::Prefill>(&parts),
            shape: format!(
                "{heads} heads of {head} over {kv_heads}, {output} out{}",
                if causal { "" } else { ", all keys for each query" }
            ),
            config: format!(
                "{QUERIES} queries, tiles of {KEYS} keys, {stages} stages, {in_flight} tiles in flight, sums {}promoted{}",
                if promotes { "" } else { "not " },
                if cluster > 1 { ", keys and values shared by pairs" } else { "" }
            ),
            reason,
            cta,
            grid: Grid::Queries { tile: QUERIES, heads, cluster },
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
    fn sizes_without_a_kernel_are_refused_with_the_reason() {
        let unit = |[heads, kv_heads, head]: [usize; 3], [stages, in_flight]: [usize; 2], promotes| {
            let attention = Prefill { heads, kv_heads, head, output: DType::BF16, causal: true };
            attention.unit(PrefillConfig { stages, in_flight, promotes, cluster: 1 }, String::new())
        };
        for (heads, in_flight) in
            [([8, 2, 128], 3), ([8, 8, 80], 3), ([4, 1, 256], 2), ([9, 3, 16], 2), ([3, 1, 72], 3)]
        {
            assert!(unit(heads, [2, in_flight], false).is_ok(), "{heads:?}");
        }
        assert!(unit([8, 2, 128], [2, 2], true).is_ok() && unit([8, 2, 64], [2, 3], true).is_ok());
        let refused = |heads, pipeline, promotes, said: &str| {
            let reason = unit(heads, pipeline, promotes).unwrap_err().to_string();
            assert!(reason.contains(said), "{reason}");
        };
        refused([8, 3, 128], [2, 3], false, "as many query heads");
        refused([8, 0, 128], [2, 3], false, "over 0");
        refused([8, 2, 36], [2, 3], false, "16 bytes");
        refused([8, 2, 512], [2, 2], false, "256 rows");
        refused([8, 2, 256], [2, 3], false, "sums, scores and probabilities take 276 of 240 registers");
        refused(
            [8, 2, 128],
            [2, 3],
            true,
            "promoted, sums, scores and probabilities take 280 of 240 registers",
        );
        refused([8, 2, 128], [2, 4], false, "with 4 tiles");
        refused([8, 2, 256], [3, 2], false, "of 232448 bytes");
        refused([8, 2, 128], [1, 2], false, "1 stages");
    }
}
