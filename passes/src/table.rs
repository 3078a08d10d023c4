//! The one table of passes: what `fireq passes` prints and pipelines are built from.

use fireq_ir::{Effect, Pass};

use crate::cse::Cse;
use crate::error::PipelineError;
use crate::pipeline::Options;
use crate::quantize_activations::QuantizeActivations;
use crate::quantize_kv::QuantizeKv;
use crate::quantize_weights::QuantizeWeights;

/// A row of the table.
pub struct PassInfo {
    /// The name in pipelines.
    pub id: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What it may do to the numbers.
    pub effect: Effect,
    /// What can be set.
    pub options: &'static [OptionInfo],
    pub(crate) build: fn(&Options) -> Result<Box<dyn Pass>, PipelineError>,
}

/// An option of a pass.
pub struct OptionInfo {
    /// Name, as in `pass{name=value}`.
    pub name: &'static str,
    /// Value when none is given.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// Every pass.
pub const PASSES: &[PassInfo] = &[
    PassInfo {
        id: "quantize-weights",
        summary: "weights of linears to INT4 groups under FP8 scales and a scale per output channel",
        effect: Effect::Lossy,
        options: &[
            OptionInfo { name: "group", default: "128", doc: "channels per scale, a multiple of 32" },
            OptionInfo {
                name: "keep",
                default: "lm_head*|*embed_tokens*",
                doc: "names of weights to leave alone; * matches anything, | separates",
            },
        ],
        build: |options| Ok(Box::new(QuantizeWeights::new(options)?)),
    },
    PassInfo {
        id: "quantize-activations",
        summary: "inputs of linears with INT4 weights to FP8 with a scale per token",
        effect: Effect::Lossy,
        options: &[],
        build: |_| Ok(Box::new(QuantizeActivations)),
    },
    PassInfo {
        id: "quantize-kv",
        summary: "keys and values to INT4, queries and probabilities to FP8",
        effect: Effect::Lossy,
        options: &[],
        build: |_| Ok(Box::new(QuantizeKv)),
    },
    PassInfo {
        id: "cse",
        summary: "values that are computed twice the same way are computed once",
        effect: Effect::Exact,
        options: &[],
        build: |_| Ok(Box::new(Cse)),
    },
];
