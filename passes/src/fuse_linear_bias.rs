//! `fuse-linear-bias`: a linear and its bias as one operation.
//!
//! Contract: `bias(linear(x, W), b)` becomes `linear_bias(x, W, b)`. Fires when nothing else reads the linear. Exact: the
//! bias is added to each rounded output, as before.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="w"} : bf16[32,64]
//!   %2 = linear %0, %1 : f32[T,32]
//!   %3 = const {name="b"} : bf16[32]
//!   %4 = bias %2, %3 : f32[T,32]
//!   return %4
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("fuse-linear-bias").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="w"} : bf16[32,64]
//!   %2 = const {name="b"} : bf16[32]
//!   %3 = linear_bias %0, %1, %2 : f32[T,32]
//!   return %3
//! }
//! "#);
//! ```

use fireq_ir::expression::leaf_name;
use fireq_ir::{Graph, Op, PassError, Patch, ValueId};

use crate::pattern::fusible;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let [y, bias] = graph.operands(value)[..] else { return None };
    if *graph.op(value) != Op::Bias {
        return None;
    }
    let linear = fusible(graph, y, |op| *op == Op::Linear)?;
    Some(fuse(graph, value, &linear, bias))
}

fn fuse(graph: &Graph, value: ValueId, linear: &[ValueId], bias: ValueId) -> Result<Patch, PassError> {
    let mut patch = Patch::new(&*leaf_name(graph, linear[1]));
    let fused = patch.add(graph, Op::LinearBias, &[linear[0].into(), linear[1].into(), bias.into()])?;
    patch.replace(value, fused);
    Ok(patch)
}
