//! The product of INT4 weights and E4M3 tokens: `x · weightᵀ`, with what an epilogue adds.

use std::fmt;

use fireq_ir::Type;
use serde::{Deserialize, Serialize};

use super::epilogue::{Addend, Epilogue, Output};
use super::params;
use super::promotion::{in_a_name, in_words};
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text, tile};
use crate::records::{COLS, group, record_bytes};
use crate::{Swizzle, TensorMapShape};

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
    /// where they keep theirs to the end. See [`promotion`](super::cost::promotion).
    pub promotion: usize,
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

    /// Whether there is such a kernel: an error with the reason where there is none.
    pub fn check(&self) -> Result<(), Unsupported> {
        let LinearConfig { tokens, warpgroups, stages, steps, split, cluster, promotion } = *self;
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

    /// Bytes of shared memory: the ring of stages, in whose place sums come later, and two barriers a stage.
    pub fn shared(&self, group: usize) -> usize {
        let sums = self.tokens * (self.channels() + 4) * 4;
        (self.stages * self.steps * self.step_bytes(group)).max(sums).next_multiple_of(16) + 16 * self.stages
    }
}

/// A product that a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Output channels: rows of the weight.
    pub channels: usize,
    /// Input channels: columns of the weight.
    pub cols: usize,
    /// Columns that a scale of the records covers: 64 or 128.
    pub group: usize,
    /// What is added.
    pub addend: Addend,
    /// What is written.
    pub output: Output,
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Linear { channels, cols, group, addend, output } = *self;
        write!(f, "{channels} × {cols} in groups of {group}")?;
        match addend {
            Addend::Nothing => Ok(()),
            Addend::Bias(dtype) => write!(f, " with a bias in {dtype}"),
            Addend::Residual => write!(f, " and a residual"),
        }?;
        match output {
            Output::F32 => Ok(()),
            Output::Bf16 => write!(f, " to bf16"),
            Output::Swiglu => write!(f, ", gated"),
        }
    }
}

impl Linear {
    /// The product itself in f32, of a weight in groups of `group`.
    pub fn plain(channels: usize, cols: usize, group: usize) -> Self {
        Linear { channels, cols, group, addend: Addend::Nothing, output: Output::F32 }
    }

    /// The product with a weight of this type.
    pub fn of(weight: &Type, addend: Addend, output: Output) -> Result<Self, Unsupported> {
        let refused = || {
            Unsupported(format!("products with {weight}: INT4 in groups of 64 or 128 under E4M3 scales do"))
        };
        let group = group(weight).ok_or_else(refused)?;
        let [channels, cols] = [weight.shape.rows(), weight.shape.cols()].map(|n| n.fixed().unwrap_or(0));
        let linear = Linear { channels, cols, group, addend, output };
        linear.check().map(|()| linear)
    }

    /// Steps of 128 columns.
    pub fn steps(&self) -> usize {
        self.cols.div_ceil(COLS)
    }

    /// Whether the kernel does this: an error with the reason where it does not.
    pub fn check(&self) -> Result<(), Unsupported> {
        let Linear { channels, cols, group, .. } = *self;
        let fail = |reason: String| Err(Unsupported(reason));
        if !matches!(group, 64 | 128) {
            return fail(format!("groups of {group} columns: 64 and 128 do"));
        }
        let multiple = match self.output {
            Output::F32 => 4,
            Output::Bf16 => 8,
            Output::Swiglu => 128,
        };
        if channels == 0 || !channels.is_multiple_of(multiple) {
            return fail(match self.output {
                Output::Swiglu => {
                    format!("{} gates: multiples of 64 do, as a warpgroup has so many", channels / 2)
                }
                _ => format!(
                    "{channels} output channels: multiples of {multiple} do, as rows are written in 16 bytes"
                ),
            });
        }
        if self.output == Output::Swiglu && self.addend != Addend::Nothing {
            return fail("gates that something is added to".into());
        }
        if cols == 0 || !cols.is_multiple_of(16) {
            return fail(format!(
                "{cols} input channels: multiples of 16 do, as TMA copies rows in 16 bytes"
            ));
        }
        Ok(())
    }

    /// Whether this configuration does it: an error with the reason where it does not.
    pub fn check_config(&self, config: &LinearConfig) -> Result<(), Unsupported> {
        if self.output == Output::Swiglu && config.warpgroups != 2 {
            return Err(Unsupported("gates and ups in one warpgroup: each has one of its own".into()));
        }
        config.check()
    }

    /// Output channels of a token.
    pub fn outputs(&self) -> usize {
        self.channels / self.output.operands()
    }

    /// The descriptor of `rows` rows of codes that launches with this configuration take. Rows beyond a launch's tokens
    /// change nothing, whatever they hold: one descriptor of a whole buffer serves every launch.
    pub fn x(&self, config: &LinearConfig, rows: usize) -> TensorMapShape {
        boxes([rows, self.cols], config.tokens)
    }

    /// The unit, with the reason for its configuration. Equal configurations share a function, whatever the sizes.
    pub fn unit(&self, config: &LinearConfig, reason: String) -> Result<Unit, Unsupported> {
        self.check().and_then(|()| self.check_config(config))?;
        let LinearConfig { tokens, split, cluster, promotion, .. } = *config;
        let cta = Cta {
            threads: config.threads(),
            cluster: config.ctas(),
            dynamic_shared: config.shared(self.group),
        };
        let (name, text) = self.text(config, cta)?;
        let shared = |what: &str, by: usize| if by > 1 { format!(", {what} {by}") } else { String::new() };
        let [k_shared, x_shared] =
            [shared("K shared by clusters of", split), shared("tokens read once for", cluster)];
        let promoted = if promotion > 0 { format!(", {}", in_words(promotion)) } else { String::new() };
        Ok(Unit {
            shape: format!("{} channels of {} i4 in groups of {}", self.channels, self.cols, self.group),
            config: format!(
                "tiles of {} channels and {tokens} tokens, {} threads, {} stages of {} columns in {} KiB{k_shared}{x_shared}{promoted}",
                config.channels(),
                cta.threads,
                config.stages,
                COLS * config.steps,
                cta.dynamic_shared.div_ceil(1024)
            ),
            reason,
            cta,
            grid: Grid::Tiles {
                channels: self.channels.div_ceil(config.channels() * cluster) * config.ctas(),
                tokens,
            },
            name,
            text,
        })
    }

    /// The function's name and the unit's text.
    fn text(&self, config: &LinearConfig, cta: Cta) -> Result<(String, String), Unsupported> {
        let LinearConfig { tokens, warpgroups, stages, steps, split, cluster, promotion } = *config;
        let Epilogue { suffix, functor, body } = Epilogue::of(self.addend, self.output)?;
        let name = format!(
            "linear{suffix}_g{}_t{tokens}_w{warpgroups}_s{stages}x{steps}_k{split}{}{}",
            self.group,
            if cluster > 1 { format!("_c{cluster}") } else { String::new() },
            in_a_name(promotion)
        );
        let of = format!(
            "LinearTile<{tokens}, {warpgroups}, {stages}, {steps}, {split}, {cluster}, {}, {promotion}>",
            self.group
        );
        let text = text::<params::Linear>(&Parts {
            name: &name,
            kernel: "linear",
            names: &[tile(&of, cta), body].concat(),
            arguments: &format!("Tile, {functor}"),
            cta,
        });
        Ok((name, text))
    }
}

/// A matrix of bytes in boxes of `tile` rows and 128 columns.
pub(super) fn boxes([rows, cols]: [usize; 2], tile: usize) -> TensorMapShape {
    TensorMapShape {
        element: 1,
        sizes: vec![cols as u64, rows as u64],
        strides: vec![cols as u64],
        tile: vec![COLS as u32, tile as u32],
        swizzle: Swizzle::B128,
    }
}
