//! How prefill attention is pipelined: what a model of the machine finds quickest for the sequences of a step.
//!
//! Of a tile of keys, tensor cores have products and the special function units one power for each score: at 128 channels
//! both take as long, so that what decides is how much of one goes on while the other does, and how much work the last SM has
//! left when others have none. **Constants are datasheet values, counts in machine code, or estimates that say so; nothing here
//! has been measured yet** (those that products share are [`super::cost`]'s).
//!
//! ```
//! use fireq_ir::DType;
//! use fireq_kernels::cuda::cost_prefill::{choose, reason};
//! use fireq_kernels::cuda::{Prefill, Sequence};
//!
//! let llama = Prefill { heads: 32, kv_heads: 8, head: 128, output: DType::BF16, causal: true };
//! let prompt = Sequence { tokens: 4096, ..Sequence::default() };
//! let (config, estimate) = choose(&llama, &[prompt]);
//! assert!(config.promotes && config.in_flight == 2);
//! assert!(reason(&[prompt], &config, &estimate).contains("unmeasured"));
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::cost::{AS_GOOD, CLOCK, L2, LATENCY, MEMORY, PRODUCT_PER_TOKEN, SM_BYTES, SMS};
use super::linear::MOST_SHARED;
use super::prefill::{KEYS, Prefill, PrefillConfig, QUERIES};
use super::sequence::{Sequence, key_tiles};

/// Powers of two that an SM's special function units find in a cycle.
const POWERS: f64 = 16.0;
/// Consumer warps of each of an SM's four schedulers.
const WARPS: usize = 2;
/// Cycles from a warpgroup's scores to its first power, and from its last power to its next product, that nothing of its own
/// hides: two exchanges of maxima, and rounding. An estimate.
const MAXIMUM: f64 = 150.0;
const ROUNDING: f64 = 120.0;
/// Cycles around a CTA that nothing hides, of barriers and the launch: an estimate.
const END: f64 = 500.0;
/// Cycles that CTAs of a pair wait for each other, when they begin and when they end: an estimate.
const PAIR: f64 = 200.0;
/// The share of its bandwidth, as datasheets have it, up to which the L2 cache is taken to hold nobody up: an estimate. Heads of 128
/// channels ask it for 32 KiB of keys and values in the 1056 cycles of a tile's products, and all 132 SMs for 4096 of its 5120
/// bytes a cycle: four fifths. In pairs it is two fifths. Times are the same in the model, which knows no queues; copies that
/// come late are what pairs are for. What decides are the timed cases of a few shapes with and without pairs, `_c2` in their
/// names (`PAIRED` in `tests/tests/gpu_kernels/timed/prefill.rs`): a GPU's times settle whether there is to be a bound, and which.
const BUSY: f64 = 0.5;

/// What the model says of an attention; times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimatePrefill {
    /// All of it.
    pub seconds: f64,
    /// Bytes over bandwidth: of memory, and of the L2 cache.
    pub memory: f64,
    /// See [`memory`](Self::memory).
    pub cache: f64,
    /// Products on the tensor cores, with SMs that have nothing to do.
    pub tensor: f64,
    /// Powers of two, with SMs that have nothing to do.
    pub powers: f64,
    /// Beginnings and ends of CTAs, which nothing hides.
    pub ends: f64,
    /// Tiles of keys of the SM that has most to do, and of all on average.
    pub tiles: [f64; 2],
}

impl EstimatePrefill {
    /// The largest part, in words.
    pub fn bound(&self) -> &'static str {
        let parts = [
            (self.memory, "bytes of memory"),
            (self.cache, "bytes of the L2 cache"),
            (self.tensor, "tensor cores"),
            (self.powers, "powers of two"),
            (self.ends, "beginnings and ends of CTAs"),
        ];
        parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or("", |part| part.1)
    }
}

/// Instructions of a warp for a tile of keys, beside masks, patience and rescaled sums, which are rare: as many for scores and
/// probabilities, barriers and places, eleven for each product, and those that sums are promoted with. Counted in machine code
/// (`codegen/tests/cuda/prefill.rs`).
pub fn tile_instructions(attention: &Prefill, config: &PrefillConfig) -> usize {
    let wide = attention.wide();
    let products = wide / 32 + KEYS / 32 * wide.div_ceil(128);
    324 + 11 * products + promotions(attention, config)
}

/// Multiplications with an addition, of each lane for a tile of keys, with which sums are promoted.
fn promotions(attention: &Prefill, config: &PrefillConfig) -> usize {
    if config.promotes { attention.wide() / 2 + 4 } else { 0 }
}

/// Cycles of a tile of keys: of both warpgroups on the tensor cores and on the special function units, and all of it.
struct TileCycles {
    tensor: f64,
    powers: f64,
    all: f64,
}

fn tile_cycles(attention: &Prefill, config: &PrefillConfig) -> TileCycles {
    let wide = attention.wide();
    let keys = (wide / 32 * KEYS) as f64 * PRODUCT_PER_TOKEN;
    let values = (KEYS / 32 * (wide + 8)) as f64 * PRODUCT_PER_TOKEN;
    let powers = (64 * KEYS) as f64 / POWERS;
    let issued = (WARPS * tile_instructions(attention, config)) as f64;
    // What one warpgroup waits for, itself: with two in flight its scores are multiplied while it has nothing else to do.
    let exposed = MAXIMUM + ROUNDING + promotions(attention, config) as f64;
    let own = match config.in_flight {
        3 => powers.max(values) + exposed,
        2 => keys + powers.max(values) + exposed,
        _ => keys + powers + values + exposed,
    };
    let bytes = (KEYS * (2 * wide)) as f64;
    let arrival = (bytes / SM_BYTES).max(LATENCY / (config.stages - 1) as f64);
    let [tensor, powers] = [2.0 * (keys + values), 2.0 * powers];
    TileCycles { tensor, powers, all: tensor.max(powers).max(issued).max(own).max(arrival) }
}

/// Cycles of a CTA beside those of its tiles: the first bytes, products and powers, the last products, and the outputs.
fn end_cycles(attention: &Prefill, config: &PrefillConfig, tile: &TileCycles) -> f64 {
    let out = (QUERIES * attention.head * attention.output.bits() / 8) as f64;
    let pair = if config.cluster > 1 { PAIR } else { 0.0 };
    1.5 * LATENCY + tile.tensor + tile.powers + END + pair + out / SM_BYTES
}

/// What the attention of a step's sequences takes.
pub fn estimate(attention: &Prefill, config: &PrefillConfig, sequences: &[Sequence]) -> EstimatePrefill {
    let tile = tile_cycles(attention, config);
    let ends = end_cycles(attention, config, &tile);
    let lengths: Vec<usize> = attention.tiles(sequences).iter().map(key_tiles).collect();
    let (cycles, tiles, ctas) = busiest(&lengths, attention.heads, config.cluster, [tile.all, ends]);
    let all: usize = lengths.iter().sum::<usize>() * attention.heads;
    let [tensor, powers] = [tile.tensor, tile.powers].map(|cycles| tiles * cycles / CLOCK);
    let [memory, cache] = byte_seconds(attention, config, sequences, all);
    EstimatePrefill {
        seconds: memory.max(cache).max(cycles / CLOCK),
        memory,
        cache,
        tensor,
        powers,
        ends: ctas * ends / CLOCK,
        tiles: [tiles, all as f64 / SMS as f64],
    }
}

/// The cycles, tiles of keys and CTAs of the SM that ends last. SMs, or clusters of them, take CTAs in order, a head or as many
/// after another, of each those with the most keys first. A tile and the ends of a CTA take so many cycles.
fn busiest(lengths: &[usize], heads: usize, cluster: usize, [tile, ends]: [f64; 2]) -> (f64, f64, f64) {
    // Whole cycles have an order.
    let mut free: BinaryHeap<Reverse<(u64, usize, usize)>> =
        (0..SMS / cluster).map(|_| Reverse((0, 0, 0))).collect();
    for length in (0..heads / cluster).flat_map(|_| lengths) {
        let Some(Reverse((at, tiles, ctas))) = free.pop() else { break };
        let taken = (*length as f64 * tile + ends).round() as u64;
        free.push(Reverse((at + taken, tiles + length, ctas + 1)));
    }
    let last = free.into_iter().map(|sm| sm.0).max().unwrap_or_default();
    (last.0 as f64, last.1 as f64, last.2 as f64)
}

/// Seconds of bytes: from memory each once; from the cache queries once, keys and values for every tile of queries, or once for
/// those of a cluster.
fn byte_seconds(
    attention: &Prefill,
    config: &PrefillConfig,
    sequences: &[Sequence],
    tiles: usize,
) -> [f64; 2] {
    let Prefill { heads, kv_heads, head, output, .. } = *attention;
    let queries: usize = sequences.iter().map(|s| s.tokens).sum();
    let keys: usize = sequences.iter().map(|s| s.tokens + s.past).sum();
    let own = queries * heads * (head + 4 + head * output.bits() / 8);
    let from_memory = (own + 2 * keys * kv_heads * head) as f64;
    let from_cache = (own + tiles / config.cluster * 2 * KEYS * head) as f64;
    [from_memory / MEMORY, from_cache / L2]
}

/// The most stages that are worth having: a tile takes longer than its bytes do.
const DEEPEST: usize = 8;

/// The most keys of a row whose sums are not promoted. On the simulator, tensor cores that keep 13 bits, as Hopper's are reported
/// to, are off by less than a hundredth there, but by two fifths behind sixteen times as many keys, where probabilities are
/// nearly alike and values of either sign; promoted sums by less than a hundredth everywhere
/// (`sums_of_long_rows_are_promoted` in `tests/tests/gpu_kernels/prefill/faults.rs` prints all of these).
pub const SHORT_ROW: usize = 1024;

/// Every pipeline that an attention could have, with sums promoted or not: the deepest that fits, of three tiles in flight and
/// of two where registers suffice; of one where they do for neither. Each alone, and in pairs where query heads share keys.
pub fn candidates(attention: &Prefill, promotes: bool) -> impl Iterator<Item = PrefillConfig> + use<> {
    let wide = attention.wide();
    let deepest = move |in_flight| {
        let config = |stages| PrefillConfig { stages, in_flight, promotes, cluster: 1 };
        let mut all = (2..=DEEPEST).rev().map(config);
        all.find(|config| config.finds_registers(wide) && config.shared(wide) <= MOST_SHARED)
    };
    let several: Vec<_> = [3, 2].into_iter().filter_map(deepest).collect();
    let one = if several.is_empty() { deepest(1) } else { None };
    let alone: Vec<_> = several.into_iter().chain(one).collect();
    let shares_keys = (attention.heads / attention.kv_heads.max(1)).is_multiple_of(2);
    let pairs = alone.clone().into_iter().map(|config| PrefillConfig { cluster: 2, ..config });
    alone.into_iter().chain(pairs.filter(move |_| shares_keys))
}

/// The pipeline for the sequences of a step, and what they take. Long rows have their sums promoted.
/// Of two that are as good it is the one with more in flight, since nobody has measured how much of one warpgroup's wait
/// the other fills; and CTAs are in pairs if the L2 cache were busy otherwise.
pub fn choose(attention: &Prefill, sequences: &[Sequence]) -> (PrefillConfig, EstimatePrefill) {
    let promotes = sequences.iter().any(|s| s.past + s.tokens > SHORT_ROW);
    let all: Vec<_> = candidates(attention, promotes)
        .map(|config| (config, estimate(attention, &config, sequences)))
        .collect();
    let least = all.iter().map(|(_, estimate)| estimate.seconds).fold(f64::INFINITY, f64::min);
    let as_good: Vec<_> =
        all.into_iter().filter(|(_, estimate)| estimate.seconds <= least * AS_GOOD).collect();
    let first = as_good[0];
    let is_busy = first.1.cache > BUSY * first.1.seconds;
    let pair = as_good.into_iter().find(|(config, _)| *config == PrefillConfig { cluster: 2, ..first.0 });
    pair.filter(|_| is_busy).unwrap_or(first)
}

/// Why this pipeline, in a sentence.
pub fn reason(sequences: &[Sequence], config: &PrefillConfig, estimate: &EstimatePrefill) -> String {
    let EstimatePrefill { seconds, memory, cache, tensor, powers, tiles: [most, mean], .. } = *estimate;
    let tokens: usize = sequences.iter().map(|s| s.tokens).sum();
    let micro = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
    format!(
        "the cost model, unmeasured, has {} for {tokens} tokens with {} tiles in flight{}{}, most of it for {}: bytes of memory {}, of the L2 cache {}, \
         tensor cores {}, powers of two {}; the last SM has {most:.0} tiles of keys, others {mean:.0} on average",
        micro(seconds),
        config.in_flight,
        if config.promotes { " and promoted sums" } else { "" },
        if config.cluster > 1 { " for pairs of heads that share copies of keys and values" } else { "" },
        estimate.bound(),
        micro(memory),
        micro(cache),
        micro(tensor),
        micro(powers)
    )
}
