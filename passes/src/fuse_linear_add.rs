//! `fuse-linear-add`: a linear and the sum with the residual stream as one operation.
//!
//! Contract: `add(residual, linear(x, W))`, in either order, becomes `linear_add(x, W, residual)`. Fires when nothing
//! else reads the linear; of two such linears the second is fused. Exact: IEEE sums do not depend on the order.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="w"} : bf16[64,64]
//!   %2 = linear %0, %1 : f32[T,64]
//!   %3 = add %0, %2 : f32[T,64]
//!   return %3
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("fuse-linear-add").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="w"} : bf16[64,64]
//!   %2 = linear_add %0, %1, %0 : f32[T,64]
//!   return %2
//! }
//! "#);
//! ```

use fireq_ir::expression::leaf_name;
use fireq_ir::{Graph, Op, PassError, Patch, ValueId};

use crate::pattern::fusible;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let [a, b] = graph.operands(value)[..] else { return None };
    if *graph.op(value) != Op::Add {
        return None;
    }
    let linear = |v| fusible(graph, v, |op| *op == Op::Linear);
    let (operands, residual) = linear(b).map(|l| (l, a)).or_else(|| linear(a).map(|l| (l, b)))?;
    Some(fuse(graph, value, &operands, residual))
}

fn fuse(graph: &Graph, value: ValueId, linear: &[ValueId], residual: ValueId) -> Result<Patch, PassError> {
    let mut patch = Patch::new(&*leaf_name(graph, linear[1]));
    let fused = patch.add(graph, Op::LinearAdd, &[linear[0].into(), linear[1].into(), residual.into()])?;
    patch.replace(value, fused);
    Ok(patch)
}
