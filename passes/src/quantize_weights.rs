//! `quantize-weights`: weights of linears to INT4 in groups under FP8 scales, and an outer scale per output channel.
//!
//! Contract: `linear(x, W)` with a constant `W` becomes `linear(x, quantize(W))`, rounding each weight to the nearest
//! integer code (FireQ section 2) under a scale chosen by `fit`; `method=search` and `method=gptq` choose codes and scales
//! for the inputs that calibration data gives each linear, `method=paper` under one power of two for the whole weight, and
//! these leave codes as a constant. In `blocks(…)` gptq aims at outputs that are `catch-up` of the way from those that the
//! inputs as they are give to those that they gave before anything was quantized. Fires for every plain weight that
//! depends on constants only, such as one that took a scale, unless `keep` matches the name of its first constant; weights
//! with fewer channels than a group keep one short group. A weight that is `dequantize` of I4 codes, with or without a factor
//! for each row, keeps these codes instead, whatever the method (`quantize_weights/codes.rs`). Lossy.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,256]
//!   %1 = const {name="w"} : bf16[8,256]
//!   %2 = linear %0, %1 : f32[T,8]
//!   return %2
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("quantize-weights").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,256]
//!   %1 = const {name="w"} : bf16[8,256]
//!   %2 = quantize %1 {to=i4<g128:e4m3,row:f32>} : i4<g128:e4m3,row:f32>[8,256]
//!   %3 = linear %0, %2 : f32[T,8]
//!   return %3
//! }
//! "#);
//! ```

use std::sync::Arc;

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{Effect, Fit, Format, Graph, Op, Pass, PassError, Patch, ValueId};

use crate::by_name::ByName;
use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::glob::matches_any;
use crate::options::Options;
use crate::table::{FIT, OptionInfo};
use crate::weights::{Method, Share};

mod calibrated;
mod codes;
mod group;

pub(crate) use codes::{Codes, has_codes};
pub(crate) use group::Group;

/// What can be set.
pub(crate) const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "group",
        default: "128",
        doc: "channels per scale, a multiple of 32; `128|GLOB:64|…` gives weights that match GLOB another",
    },
    OptionInfo { name: "fit", default: "absmax", doc: FIT },
    OptionInfo {
        name: "method",
        default: "nearest",
        doc: "nearest integers; paper: the same under one power of two for a whole weight; or for calibration data: \
              search, or gptq, which makes up for errors",
    },
    OptionInfo {
        name: "order",
        default: "moment",
        doc: "in which order gptq rounds channels: moment, the largest inputs first, or stored",
    },
    OptionInfo {
        name: "damping",
        default: "0.01",
        doc: "what gptq adds to the diagonal of the Hessian, in units of its mean",
    },
    OptionInfo {
        name: "catch-up",
        default: "0.5",
        doc: "the share of what errors before a linear change in its inputs that gptq makes up for, in blocks(…); 0 to 1",
    },
    OptionInfo {
        name: "codes",
        default: "keep",
        doc: "of weights that a checkpoint holds as I4 codes: keep, or requantize what they stand for",
    },
    OptionInfo {
        name: "keep",
        default: "lm_head*|*embed_tokens*",
        doc: "names of weights to leave alone; * matches anything, | separates, ! stands before what is not left alone, \
              and the first that matches decides",
    },
];

/// The pass with its options.
pub(crate) struct QuantizeWeights {
    /// Channels per scale, by the weight's name.
    group: ByName<Group>,
    /// How scales of groups are chosen.
    fit: Fit,
    /// Names of weights to leave alone.
    keep: String,
    /// What becomes of codes that weights have already.
    codes: Codes,
    /// How codes are chosen now; without it they are the nearest integers, and left to be chosen.
    method: Option<(Method, Arc<Calibration>)>,
}

impl Pass for QuantizeWeights {
    fn id(&self) -> &'static str {
        "quantize-weights"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let kept: Vec<Patch> = graph
            .schedule()
            .into_iter()
            .filter_map(|value| self.taken_over(graph, value))
            .collect::<Result<_, _>>()?;
        match &self.method {
            // Others are chosen for what these give.
            _ if !kept.is_empty() => Ok(kept),
            Some((method, calibration)) => calibrated::round(self, graph, method, calibration),
            None => graph.schedule().into_iter().filter_map(|value| self.nearest(graph, value)).collect(),
        }
    }
}

impl QuantizeWeights {
    /// The pass with `group`, `fit` and `keep`; a group that kernels cannot decode is refused.
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        let group = options.parsed("group")?;
        let method = match options.text("method")? {
            "nearest" => None,
            "paper" => Some(Method::paper()),
            "search" => Some(Method::searched()),
            "gptq" => Some(Method {
                order: options.parsed("order")?,
                damping: options.positive("damping")?,
                catch_up: options.parsed::<Share>("catch-up")?.0,
                ..Method::compensated()
            }),
            _ => return Err(options.refuse("method", "it is nearest, paper, search or gptq")),
        };
        let method = method.map(|method| (method, options.calibration().clone()));
        let (fit, codes) = (options.parsed("fit")?, options.parsed("codes")?);
        Ok(QuantizeWeights { group, fit, keep: options.text("keep")?.into(), codes, method })
    }

    /// The weight of a linear that is to be quantized.
    fn weight(&self, graph: &Graph, value: ValueId) -> Option<ValueId> {
        if *graph.op(value) != Op::Linear {
            return None;
        }
        let weight = graph.operands(value)[1];
        let ty = graph.ty(weight);
        let constant = ty.scheme.is_plain() && ty.shape.elements().is_some() && is_constant(graph, weight);
        (constant && !matches_any(&self.keep, &leaf_name(graph, weight))).then_some(weight)
    }

    /// Channels per scale of a weight.
    fn group(&self, graph: &Graph, weight: ValueId) -> usize {
        self.group.of(&leaf_name(graph, weight)).0
    }

    fn nearest(&self, graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
        let weight = self.weight(graph, value)?;
        let quantize = || {
            let mut patch = Patch::new(&*leaf_name(graph, weight));
            let to = Op::Quantize { to: Format::weight(self.group(graph, weight)), fit: self.fit };
            let codes = patch.add(graph, to, &[weight.into()])?;
            let linear = patch.add(graph, Op::Linear, &[graph.operands(value)[0].into(), codes])?;
            patch.replace(value, linear);
            Ok(patch)
        };
        Some(quantize())
    }
}
