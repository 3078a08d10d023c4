//! When a weight is decoded before the product, and how the product is configured then: what a model of the machine finds
//! quickest, beside the kernel that decodes while it multiplies ([`super::cost`], whose constants these are, too).
//!
//! **Constants are datasheet values, counts in machine code, or estimates that say so; nothing here has been measured yet.**
//!
//! ```
//! use fireq_kernels::cuda::cost_fp8::{Way, choose, decode_seconds, paths};
//! use fireq_kernels::cuda::{Linear, LinearFp8};
//!
//! let up = Linear::plain(28672, 4096, 128);
//! let (config, estimate) = choose(&LinearFp8::from(up), 16384);
//! assert!(config.cluster == 2 && decode_seconds(&up) < 0.05 * estimate.seconds);
//! assert!(matches!(paths(&up)[0].way, Way::Records(..)), "few tokens are not worth a workspace");
//! ```

use super::cost::{
    self, AS_GOOD, CLOCK, ENDS, Estimate, L2, LATENCY, MEMORY, PRODUCT_PER_TOKEN, Regime, SHARED_BYTES,
    SM_BYTES, SMS,
};
use super::epilogue::Addend;
use super::linear::{Linear, LinearConfig, MOST_SHARED, TOKEN_TILES};
use super::linear_fp8::{LinearFp8, LinearFp8Config, Schedule, tile_place};
use super::promotion::promotion;
use crate::records::{COLS, ROWS, record_bytes};

/// CTAs of a launch: one for each SM of an H100 or H200. GPCs have even numbers of SMs, so that pairs find room on all.
pub const CTAS: usize = SMS;

/// Bytes of 64 weights and 32 columns, the operand that every product reads beside its tokens.
const WEIGHTS_OF_A_PRODUCT: usize = 64 * 32;
/// Instructions of a warp for 64 weights of each lane, in machine code, and cycles of the integer pipe for each.
pub const DECODE_INSTRUCTIONS: usize = 280;
const INTEGER: f64 = 2.0;
const SCHEDULERS: f64 = 4.0;
/// Seconds between the end of the decoding and the first product: an estimate, since the launch is one more.
const SECOND_LAUNCH: f64 = 3e-6;
/// Cycles around the chunks of sums that nothing hides, of barriers and first loads: an estimate.
const END: f64 = 500.0;
/// Cycles from products' end to their sums in registers that only another warpgroup's products fill: an estimate.
const DRAIN: f64 = 100.0;

/// What the model says of a product with a decoded weight; times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimateFp8 {
    /// All of it but for the decoding.
    pub seconds: f64,
    /// Bytes over bandwidth, of memory and of the L2 cache.
    pub memory: f64,
    /// Products on the tensor cores, with SMs that have nothing to do.
    pub tensor: f64,
    /// Operands through shared memory, with SMs that have nothing to do.
    pub shared: f64,
    /// Beginnings, and sums on their way out while no tensor core multiplies.
    pub ends: f64,
}

impl EstimateFp8 {
    /// The largest part, in words.
    pub fn bound(&self) -> &'static str {
        let parts = [
            (self.memory, "bytes"),
            (self.tensor, "tensor cores"),
            (self.shared, "shared memory"),
            (self.ends, "sums on their way out"),
        ];
        parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or("", |part| part.1)
    }
}

/// Seconds in which a weight is decoded: its records are read, its workspace is written.
pub fn decode_seconds(linear: &Linear) -> f64 {
    let [rows, cols] = LinearFp8::from(*linear).workspace();
    let records = rows / ROWS * (cols / COLS) * record_bytes(linear.group);
    let bytes = (records + rows * cols) as f64 / MEMORY;
    let warps = (rows * cols) as f64 / (64.0 * 32.0);
    let cycles = warps * DECODE_INSTRUCTIONS as f64 * INTEGER / (SCHEDULERS * SMS as f64);
    bytes.max(cycles / CLOCK) + LATENCY / CLOCK
}

/// What a product of `tokens` tokens takes once the weight is decoded.
pub fn estimate(linear: &LinearFp8, config: &LinearFp8Config, tokens: usize) -> EstimateFp8 {
    let tiles = tiles(linear, config, tokens);
    let rounds = (tiles[0] * tiles[1]).div_ceil(CTAS / config.cluster) as f64;
    let steps = rounds * linear.steps() as f64;
    let [tensor, shared] = step_cycles(config).map(|cycles| steps * cycles);
    let arrival = (config.step_bytes() as f64 / SM_BYTES).max(LATENCY / (config.stages - 1) as f64);
    let first_step = config.step_bytes() as f64 / SM_BYTES;
    let ends = LATENCY * 1.5 + first_step + end_cycles(config, linear, rounds);
    let busy = (tensor + steps * drain_cycles(config)).max(shared).max(steps * arrival);
    let memory = memory_seconds(linear, config, tokens);
    let [tensor, shared, busy, ends] = [tensor, shared, busy, ends].map(|cycles| cycles / CLOCK);
    EstimateFp8 { seconds: memory.max(busy + ends), memory, tensor, shared, ends }
}

/// Tiles of channels, those of a cluster counted once, and of tokens.
fn tiles(linear: &LinearFp8, config: &LinearFp8Config, tokens: usize) -> [usize; 2] {
    [linear.channels.div_ceil(config.channels() * config.cluster), tokens.div_ceil(config.tokens)]
}

/// Cycles of a step of all warpgroups that have a part in it: on the tensor cores; and of shared memory, which every product
/// reads all tokens of, and copies write all operands to.
fn step_cycles(config: &LinearFp8Config) -> [f64; 2] {
    let products = (config.channels() / 64 * 4) as f64;
    let read = (WEIGHTS_OF_A_PRODUCT + config.tokens * 32) as f64;
    let bytes = products * read + config.step_bytes() as f64;
    [products * config.tokens as f64 * PRODUCT_PER_TOKEN, bytes / SHARED_BYTES]
}

/// Cycles of a step in which no tensor core multiplies, since sums are promoted: none where two warpgroups multiply at a
/// time, of which one does while the other adds.
fn drain_cycles(config: &LinearFp8Config) -> f64 {
    let added = DRAIN + config.tokens as f64 / 2.0;
    match (config.schedule, config.promotion) {
        (Schedule::Alternately, 1..) => added / config.promotion as f64,
        _ => 0.0,
    }
}

/// Cycles of `rounds` tiles' ends: of the last only, where warpgroups alternate.
fn end_cycles(config: &LinearFp8Config, linear: &LinearFp8, rounds: f64) -> f64 {
    let one = END + (linear.output.bytes() * config.tokens * config.channels()) as f64 / SM_BYTES;
    let hidden = linear.steps() as f64 * step_cycles(config)[0];
    match config.schedule {
        Schedule::Together => rounds * one,
        Schedule::Alternately => one + (rounds - 1.0) * (one - hidden).max(0.0),
    }
}

/// Seconds of bytes. From memory come the rows of a moment's tiles that those of the moment before do not have, and what is
/// added; sums go there. From the cache come the operands of every tile, tokens once for a cluster.
fn memory_seconds(linear: &LinearFp8, config: &LinearFp8Config, tokens: usize) -> f64 {
    let tiles = tiles(linear, config, tokens);
    let (count, at_once, band) = (tiles[0] * tiles[1], CTAS / config.cluster, config.band(CTAS));
    let row = (linear.steps() * COLS) as f64;
    let sides = [config.channels() * config.cluster, config.tokens];
    let mut before = [vec![false; tiles[0]], vec![false; tiles[1]]];
    let mut rows = 0;
    for first in (0..count).step_by(at_once) {
        let mut now = [vec![false; tiles[0]], vec![false; tiles[1]]];
        for n in first..(first + at_once).min(count) {
            for (axis, tile) in tile_place(n, tiles, band).into_iter().enumerate() {
                rows += if now[axis][tile] || before[axis][tile] { 0 } else { sides[axis] };
                now[axis][tile] = true;
            }
        }
        before = now;
    }
    let added = if linear.addend == Addend::Residual { 4 } else { 0 };
    let outputs = ((linear.output.bytes() + added) * tokens * linear.channels) as f64;
    let operands = count as f64 * row * (sides[0] + sides[1]) as f64;
    ((rows as f64 * row + outputs) / MEMORY).max((operands + outputs) / L2)
}

/// The deepest pipeline that fits.
fn deepest(config: LinearFp8Config) -> LinearFp8Config {
    let fits = |stages: &usize| LinearFp8Config { stages: *stages, ..config }.shared() <= MOST_SHARED;
    LinearFp8Config { stages: (2..=8).rev().find(fits).unwrap_or(2), ..config }
}

/// Every configuration that a product could have: sums are promoted as often as its columns want it, which leaves no
/// registers for 256 tokens.
pub(super) fn candidates(linear: &LinearFp8) -> impl Iterator<Item = LinearFp8Config> {
    let promotion = promotion(linear.cols);
    let schedules = [Schedule::Together, Schedule::Alternately];
    let all = schedules.into_iter().flat_map(move |schedule| {
        [2, 1].into_iter().flat_map(move |cluster| {
            [256, 192, 128]
                .map(|tokens| deepest(LinearFp8Config { tokens, stages: 2, cluster, promotion, schedule }))
        })
    });
    all.filter(|config| linear.check_config(config).is_ok())
}

/// The configuration for up to `tokens` tokens, and what it takes for as many: of those that are as good as the quickest the
/// first, and warpgroups rather together, CTAs rather in pairs and tiles rather large.
pub fn choose(linear: &LinearFp8, tokens: usize) -> (LinearFp8Config, EstimateFp8) {
    let all: Vec<_> = candidates(linear).map(|config| (config, estimate(linear, &config, tokens))).collect();
    let least = all.iter().map(|(_, estimate)| estimate.seconds).fold(f64::INFINITY, f64::min);
    let mut as_good = all.into_iter().filter(|(_, estimate)| estimate.seconds <= least * AS_GOOD);
    as_good.next().expect("the quickest is as good as itself")
}

/// How a product is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Weights are decoded while they are multiplied.
    Records(LinearConfig, Estimate),
    /// They are decoded before, which takes as many seconds.
    Workspace(LinearFp8Config, EstimateFp8, f64),
}

impl Way {
    /// Seconds of all of it.
    pub fn seconds(&self) -> f64 {
        match self {
            Way::Records(_, estimate) => estimate.seconds,
            Way::Workspace(_, estimate, decode) => decode + SECOND_LAUNCH + estimate.seconds,
        }
    }
}

/// A way, and the tokens that it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// The fewest tokens.
    pub from: usize,
    /// The most tokens; none where there is no limit.
    pub to: Option<usize>,
    /// The way, with what it takes for the most tokens, or for [`VERY_MANY`].
    pub way: Way,
}

/// Beyond the ends of [`cost::regimes`]; and tokens that stand for any number of them.
const MORE_ENDS: [usize; 2] = [4096, 8192];
/// See [`Path::way`].
pub const VERY_MANY: usize = 16384;

/// The numbers of tokens at whose ways ranges end; beyond the last, the way is that for [`VERY_MANY`].
pub fn ends() -> impl Iterator<Item = usize> {
    ENDS.into_iter().chain(MORE_ENDS)
}

/// The ways of a product, by rising numbers of tokens; neighbours differ.
pub fn paths(linear: &Linear) -> Vec<Path> {
    let decode = decode_seconds(linear);
    let mut paths: Vec<Path> = vec![];
    for to in ends().map(Some).chain([None]) {
        let tokens = to.unwrap_or(VERY_MANY);
        let (config, estimate) = cost::choose(linear, tokens);
        let records = Way::Records(config, estimate);
        let (config, estimate) = choose(&LinearFp8::from(*linear), tokens);
        let workspace = Way::Workspace(config, estimate, decode);
        // A workspace takes memory: it has to be worth that.
        let worth = tokens > TOKEN_TILES[0] && workspace.seconds() * AS_GOOD < records.seconds();
        push(&mut paths, to, if worth { workspace } else { records });
    }
    paths
}

/// Appends a way, to the last path where it is the same.
fn push(paths: &mut Vec<Path>, to: Option<usize>, way: Way) {
    let from = paths.last().and_then(|last| last.to).map_or(1, |last| last + 1);
    match (paths.last_mut(), way) {
        (Some(Path { to: end, way: Way::Records(before, e), .. }), Way::Records(now, estimate))
            if *before == now =>
        {
            (*end, *e) = (to, estimate);
        }
        (Some(Path { to: end, way: Way::Workspace(before, e, _), .. }), Way::Workspace(now, estimate, _))
            if *before == now =>
        {
            (*end, *e) = (to, estimate);
        }
        _ => paths.push(Path { from, to, way }),
    }
}

impl Path {
    /// Why this way, in a sentence.
    pub fn reason(&self) -> String {
        let tokens = self.to.unwrap_or(VERY_MANY);
        match self.way {
            Way::Records(config, estimate) => {
                Regime { from: self.from, to: Some(tokens), config, estimate }.reason()
            }
            Way::Workspace(_, e, decode) => {
                let micro = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
                format!(
                    "the cost model, unmeasured, has {} for {tokens} tokens: decoding the weight once {}, the product {}, \
                     most of it for {}: bytes {}, tensor cores {}, shared memory {}",
                    micro(self.way.seconds()),
                    micro(decode),
                    micro(e.seconds),
                    e.bound(),
                    micro(e.memory),
                    micro(e.tensor),
                    micro(e.shared)
                )
            }
        }
    }
}
