//! Which configuration a product gets for a number of tokens: the one that a model of the machine finds quickest.
//!
//! The model is a roofline with the things beside it that decide at few tokens: how many SMs have work, how many bytes are
//! on their way, and how long a CTA takes to begin and to end. **Its constants are datasheet values and counts in machine
//! code; nothing here has been measured yet**, and where neither exists, an estimate says so. The launch itself, the same
//! for all, is not counted.
//!
//! ```
//! use fireq_kernels::cuda::{Linear, cost::choose};
//!
//! let down = Linear::plain(4096, 14336, 128);
//! let [one, many] = [1, 4096].map(|tokens| choose(&down, tokens).0);
//! assert!(one.tokens == 8 && one.split > 1);
//! assert!(many.tokens >= 128 && many.split == 1);
//! ```

mod code;
#[cfg(test)]
mod stream_k;
#[cfg(test)]
mod turns;

use std::cmp::Reverse;

use super::linear::{Linear, LinearConfig, MOST_SHARED, TOKEN_TILES};
pub use super::promotion::promotion;
use crate::records::{COLS, record_bytes};
pub use code::{MULTIPLIED, StepInstructions, registers, step_instructions};

/// Cycles per second at which the datasheet's peaks are reached (H100 and H200, SXM).
pub(super) const CLOCK: f64 = 1.83e9;
/// Bytes per second from memory (H200).
pub(super) const MEMORY: f64 = 4.8e12;
/// Bytes per second from the L2 cache: 5120 a cycle, as for A100, since H100 has no such number.
pub(super) const L2: f64 = 5120.0 * CLOCK;
/// Bytes of weights that stay in the L2 cache from one tile of tokens to the next: half of it.
const L2_BYTES: f64 = 25e6;
/// Streaming multiprocessors.
pub(super) const SMS: usize = 132;
/// SMs that clusters of four or more can use: GPCs have 16 or 18, and no cluster leaves its GPC.
pub(super) const CLUSTERED_SMS: usize = 128;
/// Bytes that an SM takes from the L2 cache in a cycle.
pub(super) const SM_BYTES: f64 = 64.0;
/// Bytes that products and copies read and write in an SM's shared memory in a cycle: 32 banks of 4.
pub(super) const SHARED_BYTES: f64 = 128.0;
/// Cycles from asking for bytes to having them: an estimate.
pub(super) const LATENCY: f64 = 1000.0;
/// Cycles of a product of 64 × 32 weights for each token (8192 FP8 operations a cycle), and the least: an estimate.
pub(super) const PRODUCT_PER_TOKEN: f64 = 0.5;
const PRODUCT_LEAST: f64 = 16.0;
/// Registers of each of an SM's four schedulers, which warps take turns to belong to; the SM's threads, its shared memory,
/// and what each CTA takes of it beside its own.
const REGISTERS: usize = 16384;
const THREADS: usize = 2048;
const SHARED: usize = 228 << 10;
const SHARED_RESERVED: usize = 1 << 10;

/// Cycles between the barrier of a step and its products, or between products and what promotes them, that a lone warp
/// cannot fill: an estimate.
const EXPOSED: f64 = 120.0;

/// What the model says of a product; times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// All of it.
    pub seconds: f64,
    /// Bytes over bandwidth, of memory and of the L2 cache.
    pub memory: f64,
    /// Products on the tensor cores, with SMs that have nothing to do.
    pub tensor: f64,
    /// Decoding of weights, with SMs that have nothing to do.
    pub decode: f64,
    /// Bytes on their way over latency: what the depth of the pipeline allows.
    pub pipeline: f64,
    /// Tokens, codes and copies through shared memory, with SMs that have nothing to do.
    pub shared: f64,
    /// Beginnings and ends of CTAs, which nothing hides.
    pub ends: f64,
}

impl Estimate {
    /// The largest part, in words.
    pub fn bound(&self) -> &'static str {
        let parts = [
            (self.memory, "bytes"),
            (self.tensor, "tensor cores"),
            (self.decode, "decoding"),
            (self.pipeline, "bytes on their way"),
            (self.shared, "shared memory"),
            (self.ends, "beginnings and ends of CTAs"),
        ];
        parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or("", |part| part.1)
    }
}

/// CTAs that fit on an SM together.
fn resident(config: &LinearConfig, group: usize) -> usize {
    let by_shared = SHARED / (config.shared(group) + SHARED_RESERVED);
    let warps = 4 * (REGISTERS / (32 * registers(config, group)));
    let by_registers = warps / (config.threads() / 32);
    by_shared.min(by_registers).min(THREADS / config.threads())
}

/// What a product of `tokens` tokens takes.
pub fn estimate(linear: &Linear, config: &LinearConfig, tokens: usize) -> Estimate {
    let [clusters, token_tiles] =
        [linear.channels.div_ceil(config.channels() * config.cluster), tokens.div_ceil(config.tokens)];
    let sms = if config.ctas() >= 4 { CLUSTERED_SMS } else { SMS };
    let of_an_sm = (clusters * token_tiles * config.ctas()).div_ceil(sms);
    let in_bands = config.band > 0;
    let at_once = if in_bands { 1 } else { resident(config, linear.group).max(1) };
    let steps = linear.steps().div_ceil(config.split) as f64;
    let [mut tensor, mut decode, mut pipeline, mut shared, mut ends] = [0.0; 5];
    for (waves, ctas) in
        [(of_an_sm / at_once, at_once), (usize::from(!of_an_sm.is_multiple_of(at_once)), of_an_sm % at_once)]
    {
        let (waves, warpgroups) = (waves as f64, (ctas * config.warpgroups) as f64);
        tensor += waves * steps * tensor_cycles(config, warpgroups);
        decode += waves * steps * decode_cycles(config, linear.group, warpgroups);
        pipeline += waves * steps * arrival_cycles(config, linear.group, ctas);
        shared += waves * steps * shared_cycles(config, linear.group, ctas);
        let begins = if in_bands { waves.min(1.0) } else { waves };
        ends += begins * begin_cycles(config, linear.group, ctas) + waves * out_cycles(linear, config, ctas);
    }
    let [tensor, decode, pipeline, shared, ends] =
        [tensor, decode, pipeline, shared, ends].map(|cycles| cycles / CLOCK);
    let memory = memory_seconds(linear, config, tokens);
    let seconds = memory.max(tensor).max(decode).max(pipeline).max(shared) + ends;
    Estimate { seconds, memory, tensor, decode, pipeline, shared, ends }
}

/// Cycles of a step's four products for each of an SM's warpgroups. A warpgroup that promotes its sums asks for no others
/// meanwhile.
fn tensor_cycles(config: &LinearConfig, warpgroups: f64) -> f64 {
    let products = 4.0 * (config.tokens as f64 * PRODUCT_PER_TOKEN).max(PRODUCT_LEAST);
    let promotion = if config.promotion > 0 { (config.tokens / 2) as f64 + EXPOSED } else { 0.0 };
    let alone = products + promotion / config.promotion.max(1) as f64;
    if warpgroups > 0.0 { (warpgroups * products).max(alone) } else { 0.0 }
}

/// Cycles in which each of an SM's four schedulers does a step of `warps` warps, one of each warpgroup.
fn decode_cycles(config: &LinearConfig, group: usize, warps: f64) -> f64 {
    let StepInstructions { issued, integer } = step_instructions(config, group);
    let busy = issued.max(2 * integer).max(4 * MULTIPLIED) as f64;
    if warps > 0.0 { (warps * busy).max(busy + EXPOSED) } else { 0.0 }
}

/// Cycles in which a step of each of `ctas` CTAs arrives.
fn arrival_cycles(config: &LinearConfig, group: usize, ctas: usize) -> f64 {
    let bytes = (ctas * config.step_bytes(group)) as f64;
    let on_their_way = ((config.stages - 1) * config.steps) as f64;
    (bytes / SM_BYTES).max(if ctas > 0 { LATENCY / on_their_way } else { 0.0 })
}

/// Cycles of shared memory for a step of each of `ctas` CTAs: every product reads all its tokens, copies write all, and codes are
/// read once.
fn shared_cycles(config: &LinearConfig, group: usize, ctas: usize) -> f64 {
    let read = config.warpgroups * (config.tokens * COLS + record_bytes(group));
    (ctas * (read + config.step_bytes(group))) as f64 / SHARED_BYTES
}

/// Cycles before the first step of `ctas` CTAs, for which a whole stage has to arrive: once where they take several tiles. Those
/// that share tokens wait for each other at both ends, an estimate.
fn begin_cycles(config: &LinearConfig, group: usize, ctas: usize) -> f64 {
    let first_stage = (ctas * config.steps * config.step_bytes(group)) as f64 / SM_BYTES;
    let barriers = if config.cluster > 1 && config.split == 1 { 400.0 } else { 0.0 };
    if ctas > 0 { LATENCY + first_stage + barriers } else { 0.0 }
}

/// Cycles behind the last step of `ctas` CTAs' tiles: sums go to shared memory, from there, over the cluster's network where K is
/// split, and out. The rates are estimates.
fn out_cycles(linear: &Linear, config: &LinearConfig, ctas: usize) -> f64 {
    let sums = (ctas * config.tokens * config.channels() * 4) as f64;
    let out = sums / 4.0 * linear.output.bytes() as f64;
    let (barriers, gathered) = if config.split > 1 { (800.0, sums / 32.0) } else { (0.0, sums / 128.0) };
    let scales = if ctas > 0 { 0.5 * LATENCY + barriers } else { 0.0 };
    scales + sums / 128.0 + gathered + out / config.split as f64 / SM_BYTES
}

/// Seconds of bytes: from memory each once, but for weights that do not stay in the cache from one tile of tokens to the
/// next, or from one band of them; from the cache those of every tile, where tiles share tokens those once for all.
fn memory_seconds(linear: &Linear, config: &LinearConfig, tokens: usize) -> f64 {
    let steps = linear.steps() as f64;
    let weights = steps * linear.channels as f64 * record_bytes(linear.group) as f64 / 64.0;
    let token_tiles = tokens.div_ceil(config.tokens) as f64;
    let channel_tiles = linear.channels.div_ceil(config.channels()) as f64;
    let again = if weights > L2_BYTES { (token_tiles / config.band.max(1) as f64).ceil() } else { 1.0 };
    let x = (tokens * linear.cols) as f64;
    let out = (linear.output.bytes() * tokens * linear.channels) as f64;
    let from_memory = weights * again + x + out;
    let step = config.step_bytes(linear.group) - config.tokens * COLS + config.tokens * COLS / config.cluster;
    let from_cache = channel_tiles * token_tiles * steps * step as f64;
    (from_memory / MEMORY).max(from_cache / L2)
}

/// Stages, and their steps.
const STAGES: [(usize, usize); 6] = [(2, 2), (3, 2), (4, 2), (2, 4), (3, 4), (4, 4)];

/// Every configuration that a product could have. K is split only as long as SMs have room
/// for more CTAs, and sums are promoted as often as the columns of a CTA want it. Work is not shared out in parts of tiles, nor do
/// warpgroups take tiles in turn: `stream_k.rs` and `turns.rs` beside this have the calculations.
pub(super) fn candidates(linear: &Linear, tokens: usize) -> impl Iterator<Item = LinearConfig> {
    let linear = *linear;
    let pairs = |a: &'static [usize], b: &'static [usize]| {
        a.iter().flat_map(move |a| b.iter().map(move |b| (*a, *b)))
    };
    let each = pairs(&[1, 2, 4, 8], &[1, 2, 4]).flat_map(move |(split, cluster)| {
        let promotion = promotion(linear.steps().div_ceil(split) * COLS);
        pairs(&[1, 2], &TOKEN_TILES).flat_map(move |(warpgroups, tokens)| {
            STAGES.map(|(stages, steps)| LinearConfig {
                tokens,
                warpgroups,
                stages,
                steps,
                split,
                cluster,
                promotion,
                band: 0,
            })
        })
    });
    let each = each.flat_map(|c| [Some(c), c.in_bands()]).flatten();
    each.filter(move |c| linear.check_config(c).is_ok()).filter(move |c| {
        let at_once = resident(c, linear.group);
        let tiles = linear.channels.div_ceil(c.channels()) * tokens.div_ceil(c.tokens);
        let room = c.split == 1 || tiles * c.split / 2 < SMS * at_once;
        let shares = c.cluster <= linear.channels.div_ceil(c.channels());
        room && shares && at_once > 0 && c.split <= linear.steps() && c.shared(linear.group) <= MOST_SHARED
    })
}

/// Configurations this close to the quickest are as good: the one with the least split, the fewest tiles that share tokens, the
/// smallest tile of tokens and the most steps in stages is taken.
pub(super) const AS_GOOD: f64 = 1.02;

/// The configuration for up to `tokens` tokens, and what it takes for as many.
pub fn choose(linear: &Linear, tokens: usize) -> (LinearConfig, Estimate) {
    let all: Vec<_> =
        candidates(linear, tokens).map(|config| (config, estimate(linear, &config, tokens))).collect();
    let least = all.iter().map(|(_, estimate)| estimate.seconds).fold(f64::INFINITY, f64::min);
    let as_good = all.into_iter().filter(|(_, estimate)| estimate.seconds <= least * AS_GOOD);
    let simplest = as_good.min_by_key(|(c, _)| {
        (c.split, c.cluster, c.tokens, Reverse(c.stages * c.steps), c.steps, c.warpgroups)
    });
    simplest.expect("the smallest tile fits every product")
}

/// A configuration, and the tokens that it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regime {
    /// The fewest tokens.
    pub from: usize,
    /// The most tokens; none where there is no limit.
    pub to: Option<usize>,
    /// The configuration.
    pub config: LinearConfig,
    /// What it takes for the most tokens, or for [`MANY`].
    pub estimate: Estimate,
}

/// The token counts at whose configurations regimes end; beyond the last, the configuration is that for [`MANY`].
pub(super) const ENDS: [usize; 9] = [8, 16, 32, 64, 128, 256, 512, 1024, 2048];
/// Tokens that stand for any number of them.
pub const MANY: usize = 4096;

/// The configurations of a product, by rising numbers of tokens; neighbours differ.
pub fn regimes(linear: &Linear) -> Vec<Regime> {
    let mut regimes: Vec<Regime> = vec![];
    for to in ENDS.into_iter().map(Some).chain([None]) {
        let (config, estimate) = choose(linear, to.unwrap_or(MANY));
        let from = regimes.last().and_then(|last| last.to).map_or(1, |last| last + 1);
        match regimes.last_mut() {
            Some(last) if last.config == config => (last.to, last.estimate) = (to, estimate),
            _ => regimes.push(Regime { from, to, config, estimate }),
        }
    }
    regimes
}

impl Regime {
    /// Why this configuration, in a sentence.
    pub fn reason(&self) -> String {
        let Estimate { seconds, memory, tensor, decode, .. } = self.estimate;
        let micro = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
        format!(
            "the cost model, unmeasured, has {} for {} tokens, most of it for {}: bytes {}, tensor cores {}, decoding {}",
            micro(seconds),
            self.to.unwrap_or(MANY),
            self.estimate.bound(),
            micro(memory),
            micro(tensor),
            micro(decode)
        )
    }
}
