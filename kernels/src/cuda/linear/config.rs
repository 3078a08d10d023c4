//! How products of INT4 weights and E4M3 tokens are cut into tiles, and what that takes of an SM.

use serde::{Deserialize, Serialize};

use super::super::cost::SMS;
use super::super::unit::Unsupported;
use crate::records::{COLS, record_bytes};

/// How a product is cut into tiles; mirrored by `LinearTile` in `kernels/cuda/tile/linear.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearConfig {
    /// Tokens of a tile: 8, 16, 32, 64, 128 or 256.
    pub tokens: usize,
    /// Consumer warpgroups of a CTA, 1 or 2: each has 64 output channels.
    pub warpgroups: usize,
    /// Stages that are on their way or being multiplied.
    pub stages: usize,
    /// Steps of 128 columns of a stage: 2 or 4.
    pub steps: usize,
    /// CTAs of a tile, which share out the columns: 1, 2, 4 or 8.
    pub split: usize,
    /// Tiles that read their tokens once for all of them, neighbours in channels: 1, 2 or 4, at most as many as a stage's steps.
    pub cluster: usize,
    /// Steps after which the tensor cores' sums are added to sums in FP32 registers, a divisor of a stage's or a multiple; 0
    /// where they keep theirs to the end. See [`promotion`](crate::cuda::cost::promotion).
    pub promotion: usize,
    /// Token tiles of a band, where CTAs take one tile after another in the order of [`tile_place`](crate::cuda::tile_place); 0 where
    /// each has one. See [`LinearConfig::in_bands`].
    pub band: usize,
}

/// Token tiles that there are.
pub const TOKEN_TILES: [usize; 6] = [8, 16, 32, 64, 128, 256];

/// Shared memory that a CTA can have.
pub const MOST_SHARED: usize = 227 << 10;

impl LinearConfig {
    /// Output channels of a tile.
    pub fn channels(&self) -> usize {
        64 * self.warpgroups
    }

    /// CTAs of a cluster.
    pub fn ctas(&self) -> usize {
        self.split * self.cluster
    }

    /// Threads of a CTA: consumers, and the producer's warp, or warpgroup where it gives its registers away.
    pub fn threads(&self) -> usize {
        128 * self.warpgroups + if self.trades_registers() { 128 } else { 32 }
    }

    /// Whether consumers take registers from the producer: 128 sums for each thread need more than an equal share.
    pub fn trades_registers(&self) -> bool {
        self.tokens == 256 || (self.tokens == 128 && self.promotion > 0)
    }

    /// Whether a CTA can take one tile after another: it needs shared memory for sums beside the steps of the next.
    fn takes_several(&self) -> bool {
        self.tokens == 128 && self.warpgroups == 2 && self.promotion > 0 && self.split == 1
    }

    /// The same, taking one tile after another, where there is such a kernel: tiles of a moment are about as many channels as
    /// tokens, which reads the fewest bytes.
    pub fn in_bands(&self) -> Option<Self> {
        let band = ((SMS * self.channels()) as f64 / self.tokens as f64).sqrt().round() as usize;
        self.takes_several().then_some(LinearConfig { band, ..*self })
    }

    /// Whether there is such a kernel: an error with the reason where there is none.
    pub fn check(&self) -> Result<(), Unsupported> {
        let LinearConfig { tokens, warpgroups, stages, steps, split, cluster, promotion, band } = *self;
        let there = TOKEN_TILES.contains(&tokens)
            && matches!(warpgroups, 1 | 2)
            && matches!(steps, 2 | 4)
            && matches!(split, 1 | 2 | 4 | 8)
            && matches!(cluster, 1 | 2 | 4);
        if !there || !(2..=16).contains(&stages) {
            return Err(Unsupported(format!("no kernel has {self:?}")));
        }
        if self.ctas() > 8 {
            return Err(Unsupported(format!("clusters of {split} × {cluster} CTAs: 8 do")));
        }
        if cluster > steps {
            return Err(Unsupported(format!(
                "tokens shared by {cluster} tiles in stages of {steps}: each asks for steps of its own"
            )));
        }
        if promotion > 0 && !steps.is_multiple_of(promotion) && !promotion.is_multiple_of(steps) {
            return Err(Unsupported(format!(
                "sums promoted every {promotion} steps in stages of {steps}: they begin anew with a stage"
            )));
        }
        if band > 0 && !self.takes_several() {
            return Err(Unsupported(format!(
                "tile after tile of {} × {tokens}: 128 × 128 with promoted sums and K for one CTA do, as others find neither \
                 shared memory nor registers for sums beside steps",
                self.channels()
            )));
        }
        if promotion > 0 && tokens > 128 {
            return Err(Unsupported(format!(
                "promoted sums of {tokens} tokens: 128 do, as more leave no registers for others beside them"
            )));
        }
        Ok(())
    }

    /// Bytes of a step: tokens, and records whose scales cover `group` columns.
    pub fn step_bytes(&self, group: usize) -> usize {
        self.tokens * COLS + self.warpgroups * record_bytes(group)
    }

    /// Bytes of shared memory: the ring of stages, in whose place sums come later, or behind it where another tile follows, and two
    /// barriers a stage.
    pub fn shared(&self, group: usize) -> usize {
        let sums = self.tokens * (self.channels() + 4) * 4;
        let steps = self.stages * self.steps * self.step_bytes(group);
        let both = if self.band > 0 { steps.next_multiple_of(16) + sums } else { steps.max(sums) };
        both.next_multiple_of(16) + 16 * self.stages
    }
}
