//! `quantize-activations`: inputs of linears with INT4 weights to FP8 with a scale per token.
//!
//! Contract: every `linear(x, W)` with a plain `x` and INT4 `W` becomes `linear(quantize(x), W)` (FireQ section 3). All
//! linears that read the same `x` share one quantization. Fires only where weights are quantized already and `keep` does not
//! match their name. Lossy.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,256]
//!   %1 = const {name="w"} : i4<g128:e4m3,row:f32>[8,256]
//!   %2 = linear %0, %1 : f32[T,8]
//!   return %2
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("quantize-activations").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,256]
//!   %1 = quantize %0 {to=e4m3<row:f32>} : e4m3<row:f32>[T,256]
//!   %2 = const {name="w"} : i4<g128:e4m3,row:f32>[8,256]
//!   %3 = linear %1, %2 : f32[T,8]
//!   return %3
//! }
//! "#);
//! ```

use fireq_ir::expression::leaf_name;
use fireq_ir::{DType, Effect, Fit, Format, Graph, Op, Pass, PassError, Patch, Ref, ValueId};

use crate::error::PipelineError;
use crate::glob::matches_any;
use crate::options::Options;

/// The pass with its option.
pub(crate) struct QuantizeActivations {
    /// Names of weights whose linears are left alone.
    keep: String,
}

impl Pass for QuantizeActivations {
    fn id(&self) -> &'static str {
        "quantize-activations"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        graph.schedule().into_iter().filter_map(|value| self.site(graph, value)).collect()
    }
}

impl QuantizeActivations {
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        Ok(QuantizeActivations { keep: options.text("keep")?.into() })
    }

    /// The patch for one value, where the pass fires.
    fn site(&self, graph: &Graph, x: ValueId) -> Option<Result<Patch, PassError>> {
        let linears: Vec<ValueId> =
            graph.users(x).into_iter().filter(|user| self.reads(graph, *user, x)).collect();
        let plain = graph.ty(x).dtype == DType::F32;
        (plain && !linears.is_empty()).then(|| quantize_shared(graph, x, &linears))
    }

    /// True for a linear of `x` that is not left alone.
    fn reads(&self, graph: &Graph, user: ValueId, x: ValueId) -> bool {
        let [input, weight] = graph.operands(user)[..] else { return false };
        *graph.op(user) == Op::Linear
            && input == x
            && graph.ty(weight).dtype == DType::I4
            && !matches_any(&self.keep, &leaf_name(graph, weight))
    }
}

fn quantize_shared(graph: &Graph, x: ValueId, linears: &[ValueId]) -> Result<Patch, PassError> {
    let mut patch = Patch::new(&*leaf_name(graph, graph.operands(linears[0])[1]));
    let codes = match existing(graph, x) {
        Some(codes) => codes.into(),
        None => patch.add(graph, per_token(), &[x.into()])?,
    };
    for linear in linears {
        let weight = graph.operands(*linear)[1];
        let quantized = patch.add(graph, Op::Linear, &[codes, Ref::Old(weight)])?;
        patch.replace(*linear, quantized);
    }
    Ok(patch)
}

fn per_token() -> Op {
    Op::Quantize { to: Format::activation(), fit: Fit::Absmax }
}

/// A quantization of `x` to the same format that is there already.
fn existing(graph: &Graph, x: ValueId) -> Option<ValueId> {
    let same = |user: &ValueId| *graph.op(*user) == per_token();
    graph.users(x).into_iter().find(same)
}
