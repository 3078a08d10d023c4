//! The one table of passes: what `fireq passes` prints and pipelines are built from.

use fireq_ir::Effect;

use crate::canonicalize::Canonicalize;
use crate::const_fold::ConstFold;
use crate::cse::Cse;
use crate::dce::Dce;
use crate::fold_norm_weights::FoldNormWeights;
use crate::fold_scales::FoldScales;
use crate::quantize_activations::QuantizeActivations;
use crate::quantize_head::QuantizeHead;
use crate::quantize_kv::QuantizeKv;
use crate::quantize_weights::QuantizeWeights;
use crate::sites::{Build, Site};
use crate::smooth_linears::SmoothLinears;

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
    pub(crate) build: Build,
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

/// What `fit` means, wherever something becomes INT4.
pub(crate) const FIT: &str =
    "how INT4 scales are chosen: absmax, signed (one level more), clipped (of four signed ones the best)";

/// A pass that makes one operation of several.
const fn fusion(id: &'static str, summary: &'static str, site: Site) -> PassInfo {
    PassInfo { id, summary, effect: Effect::Exact, options: &[], build: Build::Sites(site) }
}

/// Every pass: exact ones, quantizations, fusions.
pub const PASSES: &[PassInfo] = &[
    PassInfo {
        id: "canonicalize",
        summary: "of several ways to write the same, one",
        effect: Effect::Exact,
        options: &[],
        build: Build::Pass(|_| Ok(Box::new(Canonicalize))),
    },
    PassInfo {
        id: "push-layout",
        summary: "transposes and reshapes move towards constants, and vanish where they meet their like",
        effect: Effect::Exact,
        options: &[],
        build: Build::Sites(crate::push_layout::site),
    },
    PassInfo {
        id: "const-fold",
        summary: "expressions over constants are computed now",
        effect: Effect::Exact,
        options: &[OptionInfo {
            name: "limit",
            default: "65536",
            doc: "the most elements of a constant that is made or read; larger ones stay expressions",
        }],
        build: Build::Pass(|options| Ok(Box::new(ConstFold::new(options)?))),
    },
    PassInfo {
        id: "cse",
        summary: "values that are computed twice the same way are computed once",
        effect: Effect::Exact,
        options: &[],
        build: Build::Pass(|_| Ok(Box::new(Cse))),
    },
    PassInfo {
        id: "dce",
        summary: "what neither an output nor a cache needs is removed",
        effect: Effect::Exact,
        options: &[],
        build: Build::Pass(|_| Ok(Box::new(Dce))),
    },
    PassInfo {
        id: "fold-norm-weights",
        summary: "weights of norms into the linears that read them",
        effect: Effect::Reassociates,
        options: &[],
        build: Build::Pass(|_| Ok(Box::new(FoldNormWeights))),
    },
    PassInfo {
        id: "fold-scales",
        summary: "scales move through linears, norms, SiLU·up, attention and rope until they meet constants",
        effect: Effect::Reassociates,
        options: &[OptionInfo {
            name: "nodes",
            default: "2000",
            doc: "e-nodes at which the search in a block stops",
        }],
        build: Build::Pass(|options| Ok(Box::new(FoldScales::new(options)?))),
    },
    PassInfo {
        id: "smooth-linears",
        summary: "inputs and weights of linears that are easier to round: a scale per channel, for calibration data",
        effect: Effect::Reassociates,
        options: crate::smooth::paper::LINEARS,
        build: Build::Pass(|options| Ok(Box::new(SmoothLinears::new(options)?))),
    },
    PassInfo {
        id: "smooth-rope-pre",
        summary: "keys that are easier to round: a scale per rope pair, undone in queries, for calibration data",
        effect: Effect::Reassociates,
        options: crate::smooth_rope_pre::OPTIONS,
        build: Build::Pass(|options| Ok(Box::new(crate::smooth_rope_pre::build(options)?))),
    },
    PassInfo {
        id: "smooth-rope-post",
        summary: "the same behind rope, where each of the largest channels has a scale of its own",
        effect: Effect::Reassociates,
        options: crate::smooth_rope_post::OPTIONS,
        build: Build::Pass(|options| Ok(Box::new(crate::smooth_rope_post::build(options)?))),
    },
    PassInfo {
        id: "merge-qkv",
        summary: "the projections of queries, keys and values as one linear",
        effect: Effect::Exact,
        options: &[],
        build: Build::Sites(crate::merge_qkv::site),
    },
    PassInfo {
        id: "merge-gate-up",
        summary: "the two products before SiLU(gate)·up as one linear",
        effect: Effect::Exact,
        options: &[],
        build: Build::Sites(crate::merge_gate_up::site),
    },
    PassInfo {
        id: "quantize-weights",
        summary: "weights of linears to INT4 groups under FP8 scales and a scale per output channel",
        effect: Effect::Lossy,
        options: crate::quantize_weights::OPTIONS,
        build: Build::Pass(|options| Ok(Box::new(QuantizeWeights::new(options)?))),
    },
    PassInfo {
        id: "quantize-activations",
        summary: "inputs of linears with INT4 weights to FP8 with a scale per token",
        effect: Effect::Lossy,
        options: &[OptionInfo {
            name: "keep",
            default: "",
            doc: "names of weights whose inputs are left alone",
        }],
        build: Build::Pass(|options| Ok(Box::new(QuantizeActivations::new(options)?))),
    },
    PassInfo {
        id: "quantize-kv",
        summary: "keys and values to INT4, queries and probabilities to FP8",
        effect: Effect::Lossy,
        options: crate::quantize_kv::OPTIONS,
        build: Build::Pass(|options| Ok(Box::new(QuantizeKv::new(options)?))),
    },
    PassInfo {
        id: "quantize-head",
        summary: "the weight of the linear that gives logits to FP8 with a scale per row",
        effect: Effect::Lossy,
        options: crate::quantize_head::OPTIONS,
        build: Build::Pass(|options| Ok(Box::new(QuantizeHead::new(options)?))),
    },
    fusion(
        "fuse-norm-quantize",
        "a norm and the quantization that reads it as one operation",
        crate::fuse_norm_quantize::site,
    ),
    fusion(
        "fuse-linear-swiglu",
        "a product for gate and up, SiLU(gate)·up and its quantization as one operation",
        crate::fuse_linear_swiglu::site,
    ),
    fusion("fuse-linear-bias", "a linear and its bias as one operation", crate::fuse_linear_bias::site),
    fusion(
        "fuse-linear-add",
        "a linear and the sum with the residual stream as one operation",
        crate::fuse_linear_add::site,
    ),
    fusion(
        "fuse-rope-scaling",
        "rope, the scaling after it, quantization and cache append as one operation",
        crate::fuse_rope_scaling::site,
    ),
];
