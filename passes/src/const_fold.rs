//! `const-fold`: expressions over constants, computed now.
//!
//! Contract: an operation on constants becomes a constant with the numbers that the interpreter gives, as large an
//! expression at a time as there is. Fires for plain results whose constants all have their data, when neither result nor
//! any operand has more than `limit` elements: larger weights stay expressions, which are computed one at a time when an
//! artifact is written. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="norm", data=[1.0, 2.0, 0.5, 4.0]} : bf16[4]
//!   %2 = const {name="s", data=[0.5, 0.5, 2.0, 1.0]} : f32[4]
//!   %3 = scale %1, %2 : f32[4]
//!   %4 = rms_norm %0, %3 {eps=1e-5} : f32[T,4]
//!   return %4
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("const-fold").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="norm.folded", data=[0.5, 1.0, 1.0, 4.0]} : f32[4]
//!   %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,4]
//!   return %2
//! }
//! "#);
//! ```

use std::collections::BTreeSet;

use fireq_ir::expression::leaf_name;
use fireq_ir::interp::eval_constant;
use fireq_ir::{ConstData, Effect, Graph, Op, Pass, PassError, Patch, ValueId};

use crate::error::PipelineError;
use crate::options::Options;
use crate::pattern::Names;

/// The pass with its option.
pub(crate) struct ConstFold {
    /// The most elements of a constant that it makes or reads.
    limit: usize,
}

impl Pass for ConstFold {
    fn id(&self) -> &'static str {
        "const-fold"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let foldable = self.foldable(graph);
        let mut names = Names::new(graph);
        let root = |v: &ValueId| {
            let inner =
                graph.users(*v).iter().all(|user| foldable.contains(user)) && !graph.outputs.contains(v);
            foldable.contains(v) && !matches!(graph.op(*v), Op::Const { .. }) && !inner
        };
        graph.schedule().into_iter().filter(root).map(|v| fold(graph, v, &mut names)).collect()
    }
}

impl ConstFold {
    /// The pass with `limit`.
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        Ok(ConstFold { limit: options.number("limit")? })
    }

    fn foldable(&self, graph: &Graph) -> BTreeSet<ValueId> {
        let mut foldable = BTreeSet::new();
        for value in graph.schedule() {
            let ty = graph.ty(value);
            let small = ty.shape.elements().is_some_and(|n| n <= self.limit) && !ty.dtype.is_code();
            let known = match graph.op(value) {
                Op::Const { name } => graph.constants.get(name).is_some_and(|data| data.bytes().is_some()),
                op => !op.is_source() && graph.operands(value).iter().all(|v| foldable.contains(v)),
            };
            if small && known {
                foldable.insert(value);
            }
        }
        foldable
    }
}

fn fold(graph: &Graph, value: ValueId, names: &mut Names<'_>) -> Result<Patch, PassError> {
    let leaf = leaf_name(graph, value);
    let refuse = |reason: String| PassError::Refused { site: leaf.to_string(), reason };
    let tensor = eval_constant(graph, value).map_err(|e| refuse(e.to_string()))?;
    let ty = graph.ty(value).clone();
    let data = ConstData::from_numbers(ty.dtype, &tensor.to_f32())
        .ok_or_else(|| refuse(format!("its numbers do not fit {}", ty.dtype)))?;
    let mut patch = Patch::new(&*leaf);
    let folded = patch.constant(&names.fresh(&leaf, "folded"), ty, data);
    patch.replace(value, folded);
    Ok(patch)
}
