//! `quantize-head`: the weight of the linear that gives logits to E4M3 with a scale per row.
//!
//! Contract: `linear(x, W)` that is an output of the graph, with a constant `W`, becomes `linear(x, quantize(W))`: each weight
//! the nearest E4M3 number in units of its row's scale, absmax/448. Its input stays as it is, since a linear that is read once
//! for a token is bound by the bytes of its weight, which this halves. An embedding that is the same constant stays, too: few
//! of its rows are read. Fires for plain weights that depend on constants only, unless `keep` matches the name of the first of
//! these. Lossy.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="tokens"} : i32[T]
//!   %1 = const {name="embed"} : bf16[8,64]
//!   %2 = gather %1, %0 : f32[T,64]
//!   %3 = linear %2, %1 : f32[T,8]
//!   return %3
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("quantize-head").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="tokens"} : i32[T]
//!   %1 = const {name="embed"} : bf16[8,64]
//!   %2 = gather %1, %0 : f32[T,64]
//!   %3 = quantize %1 {to=e4m3<row:f32>} : e4m3<row:f32>[8,64]
//!   %4 = linear %2, %3 : f32[T,8]
//!   return %4
//! }
//! "#);
//! ```

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{Effect, Fit, Format, Graph, Op, Pass, PassError, Patch, ValueId};

use crate::error::PipelineError;
use crate::glob::matches_any;
use crate::options::Options;
use crate::table::OptionInfo;

/// What can be set.
pub(crate) const OPTIONS: &[OptionInfo] = &[OptionInfo {
    name: "keep",
    default: "",
    doc: "names of weights to leave alone; ! stands before what is not left alone, and the first that matches decides",
}];

/// The pass with its option.
pub(crate) struct QuantizeHead {
    /// Names of weights to leave alone.
    keep: String,
}

impl Pass for QuantizeHead {
    fn id(&self) -> &'static str {
        "quantize-head"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        graph.schedule().into_iter().filter_map(|value| self.site(graph, value)).collect()
    }
}

impl QuantizeHead {
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        Ok(QuantizeHead { keep: options.text("keep")?.into() })
    }

    /// The patch for one value, where the pass fires.
    fn site(&self, graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
        if *graph.op(value) != Op::Linear || !graph.outputs.contains(&value) {
            return None;
        }
        let [x, weight] = graph.operands(value)[..] else { return None };
        let plain = graph.ty(weight).scheme.is_plain() && is_constant(graph, weight);
        let name = leaf_name(graph, weight);
        (plain && !matches_any(&self.keep, &name)).then(|| {
            let mut patch = Patch::new(&*name);
            let to = Op::Quantize { to: Format::head(), fit: Fit::Absmax };
            let codes = patch.add(graph, to, &[weight.into()])?;
            let linear = patch.add(graph, Op::Linear, &[x.into(), codes])?;
            patch.replace(value, linear);
            Ok(patch)
        })
    }
}
