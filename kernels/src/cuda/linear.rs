//! The product of INT4 weights and E4M3 tokens: `x · weightᵀ`, with what an epilogue adds.

mod config;

use std::fmt;

use fireq_ir::Type;

use super::cost::{CLUSTERED_SMS, SMS};
use super::epilogue::{Addend, Epilogue, Output};
use super::params;
use super::promotion::{in_a_name, in_words};
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text, tile};
use crate::layout::pitch;
use crate::records::{COLS, group};
use crate::{Swizzle, TensorMapShape};
pub use config::{LinearConfig, MOST_SHARED, TOKEN_TILES};

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
        if channels == 0 || cols == 0 {
            return fail(format!("{channels} output channels of {cols} input channels"));
        }
        if self.output == Output::Swiglu && !channels.is_multiple_of(128) {
            return fail(format!("{} gates: multiples of 64 do, as a warpgroup has so many", channels / 2));
        }
        if self.output == Output::Swiglu && self.addend != Addend::Nothing {
            return fail("gates that something is added to".into());
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
        let LinearConfig { tokens, split, cluster, promotion, band, .. } = *config;
        let cta = Cta {
            threads: config.threads(),
            cluster: config.ctas(),
            dynamic_shared: config.shared(self.group),
        };
        let (name, text) = self.text(config, cta)?;
        let shared = |what: &str, by: usize| if by > 1 { format!(", {what} {by}") } else { String::new() };
        let [k_shared, x_shared] =
            [shared("K shared by clusters of", split), shared("tokens read once for", cluster)];
        let ordered =
            if band > 0 { format!(", one after another in bands of {band}") } else { String::new() };
        let promoted = if promotion > 0 { format!(", {}", in_words(promotion)) } else { String::new() };
        Ok(Unit {
            shape: format!("{} channels of {} i4 in groups of {}", self.channels, self.cols, self.group),
            config: format!(
                "tiles of {} channels and {tokens} tokens, {} threads, {} stages of {} columns in {} KiB{k_shared}{x_shared}{ordered}{promoted}",
                config.channels(),
                cta.threads,
                config.stages,
                COLS * config.steps,
                cta.dynamic_shared.div_ceil(1024)
            ),
            reason,
            cta,
            grid: self.grid(config),
            name,
            text,
        })
    }

    fn grid(&self, config: &LinearConfig) -> Grid {
        let LinearConfig { tokens, cluster, band, .. } = *config;
        let clusters = self.channels.div_ceil(config.channels() * cluster);
        if band > 0 {
            let ctas = if config.ctas() >= 4 { CLUSTERED_SMS } else { SMS };
            Grid::Persistent { channels: clusters, tokens, cluster, ctas }
        } else {
            Grid::Tiles { channels: clusters * config.ctas(), tokens }
        }
    }

    /// The function's name and the unit's text.
    fn text(&self, config: &LinearConfig, cta: Cta) -> Result<(String, String), Unsupported> {
        let LinearConfig { tokens, warpgroups, stages, steps, split, cluster, promotion, band } = *config;
        let Epilogue { suffix, functor, body } = Epilogue::of(self.addend, self.output, self.channels)?;
        let name = format!(
            "linear{suffix}_g{}_t{tokens}_w{warpgroups}_s{stages}x{steps}_k{split}{}{}{}",
            self.group,
            if cluster > 1 { format!("_c{cluster}") } else { String::new() },
            in_a_name(promotion),
            if band > 0 { format!("_b{band}") } else { String::new() }
        );
        let of = format!(
            "LinearTile<{tokens}, {warpgroups}, {stages}, {steps}, {split}, {cluster}, {}, {promotion}, {band}>",
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

/// A matrix of E4M3 codes in boxes of `tile` rows and 128 columns; those that it has not are zeros.
pub(super) fn boxes([rows, cols]: [usize; 2], tile: usize) -> TensorMapShape {
    TensorMapShape {
        element: 1,
        sizes: vec![cols as u64, rows as u64],
        strides: vec![pitch(cols) as u64],
        tile: vec![COLS as u32, tile as u32],
        swizzle: Swizzle::B128,
    }
}
