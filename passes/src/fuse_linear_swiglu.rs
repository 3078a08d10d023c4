//! `fuse-linear-swiglu`: the product for gate and up, SiLU(gate)·up and its quantization as one operation.
//!
//! Contract: with `y = linear(x, W)`, `quantize(mul(silu(first half of y), second half of y))` becomes
//! `linear_swiglu(x, W)`. Fires after merge-gate-up, when nothing else reads what lies between. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="gate"} : bf16[128,64]
//!   %2 = linear %0, %1 : f32[T,128]
//!   %3 = slice %2 {start=0, size=64} : f32[T,64]
//!   %4 = silu %3 : f32[T,64]
//!   %5 = slice %2 {start=64, size=64} : f32[T,64]
//!   %6 = mul %4, %5 : f32[T,64]
//!   %7 = quantize %6 {to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
//!   return %7
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("fuse-linear-swiglu").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="gate"} : bf16[128,64]
//!   %2 = linear_swiglu %0, %1 {to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
//!   return %2
//! }
//! "#);
//! ```

use fireq_ir::expression::leaf_name;
use fireq_ir::{Fit, Format, Graph, Op, PassError, Patch, ValueId};

use crate::pattern::fusible;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let Op::Quantize { to, fit: Fit::Absmax } = graph.op(value) else { return None };
    let product = fusible(graph, graph.operands(value)[0], |op| *op == Op::Mul)?;
    let gate_first = *graph.op(product[0]) == Op::Silu;
    let (silu, up) = if gate_first { (product[0], product[1]) } else { (product[1], product[0]) };
    let gate = fusible(graph, silu, |op| *op == Op::Silu)?[0];
    let both = graph.operands(gate).first().copied()?;
    let half = graph.ty(gate).shape.cols().fixed()?;
    let is_half = |value: ValueId, start| {
        let op = Op::Slice { start, size: half };
        fusible(graph, value, |found| *found == op).is_some_and(|operands| operands[0] == both)
    };
    let whole = graph.ty(both).shape.cols().fixed() == Some(2 * half);
    let only =
        *graph.op(both) == Op::Linear && graph.users(both).len() == 2 && !graph.outputs.contains(&both);
    (whole && only && is_half(gate, 0) && is_half(up, half)).then(|| fuse(graph, value, both, to))
}

fn fuse(graph: &Graph, value: ValueId, linear: ValueId, to: &Format) -> Result<Patch, PassError> {
    let [x, weight] = graph.operands(linear)[..] else { unreachable!("linear has two operands") };
    let mut patch = Patch::new(&*leaf_name(graph, weight));
    let fused = patch.add(graph, Op::LinearSwiglu { to: to.clone() }, &[x.into(), weight.into()])?;
    patch.replace(value, fused);
    Ok(patch)
}
