//! The product of E4M3 weights and E4M3 tokens: `x · weightᵀ` for large prefills, whose INT4 weights were decoded into a
//! workspace before, once for all tokens. Both operands lie in shared memory, and CTAs take one tile after another.

use serde::{Deserialize, Serialize};

use super::epilogue::{Addend, Epilogue, Output};
use super::linear::{Linear, boxes};
use super::params;
use super::promotion::{in_a_name, in_words};
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text, tile};
use crate::TensorMapShape;
use crate::records::COLS;

/// How the two consumer warpgroups of a CTA share out tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Each has 64 of a tile's 128 channels.
    Together,
    /// Tiles have 64 channels, and each warpgroup every other one: it writes sums while the other multiplies.
    Alternately,
}

/// How a product is cut into tiles; mirrored by `LinearFp8Tile` in `kernels/cuda/tile/linear_fp8.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearFp8Config {
    /// Tokens of a tile: 128, 192 or 256.
    pub tokens: usize,
    /// Steps of 128 columns that are on their way or being multiplied.
    pub stages: usize,
    /// CTAs of a cluster, which share tokens: 1 or 2.
    pub cluster: usize,
    /// Steps after which the tensor cores' sums are added to others in registers; 0: never. Sums of 256 tokens leave no room.
    /// See [`promotion`](super::cost::promotion).
    pub promotion: usize,
    /// How warpgroups share out tiles.
    pub schedule: Schedule,
}

/// Two consumer warpgroups, and the producer's, which gives its registers away.
pub const FP8_THREADS: usize = 384;

/// Bytes of shared memory through which sums go out: two buffers of 16 rows for each consumer warpgroup.
const STAGED: usize = 4 * 16 * (64 + 4) * 4;

impl LinearFp8Config {
    /// Whether there is such a kernel: an error with the reason where there is none.
    pub fn check(&self) -> Result<(), Unsupported> {
        let LinearFp8Config { tokens, stages, cluster, promotion, .. } = *self;
        let there = matches!(tokens, 128 | 192 | 256) && matches!(cluster, 1 | 2) && promotion <= 1 << 10;
        if !there || !(2..=8).contains(&stages) {
            return Err(Unsupported(format!("no kernel has {self:?}")));
        }
        if tokens == 256 && promotion > 0 {
            return Err(Unsupported("two sets of sums of 256 tokens: registers hold one".into()));
        }
        Ok(())
    }

    /// Output channels of a tile.
    pub fn channels(&self) -> usize {
        match self.schedule {
            Schedule::Together => 128,
            Schedule::Alternately => 64,
        }
    }

    /// Bytes of a step: tokens and weights.
    pub fn step_bytes(&self) -> usize {
        (self.tokens + self.channels()) * COLS
    }

    /// Bytes of shared memory: the ring of steps, sums on their way out, and barriers.
    pub fn shared(&self) -> usize {
        self.stages * self.step_bytes() + STAGED + 8 * (2 * self.stages + 2)
    }

    /// Token tiles of a band, in the order of [`tile_place`], for `ctas` CTAs at a time: tiles that are multiplied together
    /// are about as many channels as tokens, which reads the fewest bytes.
    pub fn band(&self, ctas: usize) -> usize {
        ((ctas * self.channels()) as f64 / self.tokens as f64).sqrt().round().max(1.0) as usize
    }
}

/// Where the `n`-th of all tiles is: which of `channels` tiles of channels, and which of `tokens` tiles of tokens. Bands of
/// `band` token tiles come one after the other, and in each, for every tile of channels, its tokens. Mirrored by
/// `tile_place` in `kernels/cuda/tile/linear_fp8.cuh`.
pub fn tile_place(n: usize, [channels, tokens]: [usize; 2], band: usize) -> [usize; 2] {
    let first = n / (band * channels) * band;
    let (width, within) = (band.min(tokens - first), n - first * channels);
    [within / width, first + within % width]
}

/// A product with a decoded weight that a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearFp8 {
    /// Rows of the weight: output channels, or gates and ups.
    pub channels: usize,
    /// Input channels: columns of the weight.
    pub cols: usize,
    /// What is added.
    pub addend: Addend,
    /// What is written.
    pub output: Output,
}

impl From<Linear> for LinearFp8 {
    fn from(Linear { channels, cols, addend, output, .. }: Linear) -> Self {
        LinearFp8 { channels, cols, addend, output }
    }
}

impl LinearFp8 {
    /// Steps of 128 columns.
    pub fn steps(&self) -> usize {
        self.cols.div_ceil(COLS)
    }

    /// Rows and columns of the decoded weight in a workspace, row by row: channels and columns rounded up to 128. Numbers
    /// beyond the weight's are zero.
    pub fn workspace(&self) -> [usize; 2] {
        [self.channels.next_multiple_of(128), self.steps() * COLS]
    }

    /// The descriptor of `rows` rows of codes; those beyond a launch's tokens change nothing, whatever they hold.
    pub fn x(&self, config: &LinearFp8Config, rows: usize) -> TensorMapShape {
        boxes([rows, self.cols], config.tokens / config.cluster)
    }

    /// The descriptor of the weight in its workspace. Gates and ups of a tile are boxes of their own.
    pub fn weight(&self, config: &LinearFp8Config) -> TensorMapShape {
        boxes(self.workspace(), config.channels() / self.output.operands())
    }

    /// Whether this configuration does it: an error with the reason where it does not.
    pub fn check_config(&self, config: &LinearFp8Config) -> Result<(), Unsupported> {
        config.check()?;
        if self.output == Output::Swiglu && config.schedule == Schedule::Alternately {
            return Err(Unsupported("gates and ups in turn: each warpgroup has one of both".into()));
        }
        Ok(())
    }

    /// The unit for launches of at most `ctas` CTAs, as many as run at a time, with the reason for its configuration.
    pub fn unit(&self, config: &LinearFp8Config, ctas: usize, reason: String) -> Result<Unit, Unsupported> {
        let LinearFp8 { channels, cols, addend, output } = *self;
        Linear { addend, output, ..Linear::plain(channels, cols, COLS) }.check()?;
        self.check_config(config)?;
        let LinearFp8Config { tokens, cluster, .. } = *config;
        let cta = Cta { threads: FP8_THREADS, cluster, dynamic_shared: config.shared() };
        let (name, text) = self.text(config, cta)?;
        let shared = if cluster > 1 { format!(", tokens shared by {cluster} CTAs") } else { String::new() };
        let alternating = config.schedule == Schedule::Alternately;
        Ok(Unit {
            shape: format!("{channels} channels of {cols} e4m3"),
            config: format!(
                "tiles of {} channels and {tokens} tokens, one after another{}, {FP8_THREADS} threads, {} stages in {} KiB, \
                 {}{shared}",
                config.channels(),
                if alternating { " in turn" } else { "" },
                config.stages,
                cta.dynamic_shared.div_ceil(1024),
                in_words(config.promotion),
            ),
            reason,
            cta,
            grid: Grid::Persistent {
                channels: channels.div_ceil(config.channels() * cluster),
                tokens,
                cluster,
                ctas,
            },
            name,
            text,
        })
    }

    /// The function's name and the unit's text.
    fn text(&self, config: &LinearFp8Config, cta: Cta) -> Result<(String, String), Unsupported> {
        let LinearFp8Config { tokens, stages, cluster, promotion, schedule } = *config;
        let Epilogue { suffix, functor, body } = Epilogue::of(self.addend, self.output, self.channels)?;
        let (turns, schedule) = match schedule {
            Schedule::Together => ("", "TOGETHER"),
            Schedule::Alternately => ("_alternately", "ALTERNATELY"),
        };
        let promoted = in_a_name(promotion);
        let name = format!("linear_fp8{suffix}_t{tokens}_s{stages}_c{cluster}{promoted}{turns}");
        let of = format!("LinearFp8Tile<{tokens}, {stages}, {cluster}, {promotion}, Schedule::{schedule}>");
        let text = text::<params::LinearFp8>(&Parts {
            name: &name,
            kernel: "linear_fp8",
            names: &[tile(&of, cta), body].concat(),
            arguments: &format!("Tile, {functor}"),
            cta,
        });
        Ok((name, text))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_tile_has_its_turn_once() {
        for channels in [1, 2, 5, 16] {
            for tokens in [1, 3, 8, 13] {
                for band in [1, 2, 7, 8, 50] {
                    let places: BTreeSet<_> = (0..channels * tokens)
                        .map(|n| tile_place(n, [channels, tokens], band))
                        .filter(|[c, t]| *c < channels && *t < tokens)
                        .collect();
                    assert_eq!(places.len(), channels * tokens, "{channels} × {tokens} in bands of {band}");
                }
            }
        }
    }

    #[test]
    fn tiles_of_a_moment_are_about_a_square() {
        let config = LinearFp8Config {
            tokens: 256,
            stages: 4,
            cluster: 2,
            promotion: 0,
            schedule: Schedule::Together,
        };
        let band = config.band(132);
        assert_eq!(band, 8);
        // 66 pairs of CTAs, 112 pairs of channel tiles, 64 tiles of tokens.
        let first: Vec<_> = (0..66).map(|n| tile_place(n, [112, 64], band)).collect();
        let count = |axis: usize| first.iter().map(|place| place[axis]).collect::<BTreeSet<_>>().len();
        assert_eq!([count(0) * 256, count(1) * 256], [9 * 256, 8 * 256], "channels and tokens");
    }
}
