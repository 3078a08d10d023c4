//! `merge-gate-up`: the two products before SiLU(gate)·up as one linear.
//!
//! Contract: in `mul(silu(linear(x, G)), linear(x, U))` both linears become halves of one, gate first. Fires only when
//! each has no other use and the weights are constants of one format. Each output channel is computed as before: exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,8]
//!   %1 = const {name="gate"} : bf16[6,8]
//!   %2 = linear %0, %1 : f32[T,6]
//!   %3 = silu %2 : f32[T,6]
//!   %4 = const {name="up"} : bf16[6,8]
//!   %5 = linear %0, %4 : f32[T,6]
//!   %6 = mul %3, %5 : f32[T,6]
//!   return %6
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("merge-gate-up").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,8]
//!   %1 = const {name="gate"} : bf16[6,8]
//!   %2 = const {name="up"} : bf16[6,8]
//!   %3 = concat %1, %2 : bf16[12,8]
//!   %4 = linear %0, %3 : f32[T,12]
//!   %5 = slice %4 {start=0, size=6} : f32[T,6]
//!   %6 = silu %5 : f32[T,6]
//!   %7 = slice %4 {start=6, size=6} : f32[T,6]
//!   %8 = mul %6, %7 : f32[T,6]
//!   return %8
//! }
//! "#);
//! ```

use fireq_ir::{Graph, Op, PassError, Patch, ValueId};

use crate::merge::merge;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let [a, b] = graph.operands(value)[..] else { return None };
    if *graph.op(value) != Op::Mul {
        return None;
    }
    let (silu, up) = if *graph.op(a) == Op::Silu { (a, b) } else { (b, a) };
    if *graph.op(silu) != Op::Silu {
        return None;
    }
    let [gate, up] = [graph.operands(silu)[0], up].map(|v| projection(graph, v));
    merge(graph, &[gate?, up?])
}

/// The linear of a value, before its bias if it has one.
fn projection(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let value = if *graph.op(value) == Op::Bias { graph.operands(value)[0] } else { value };
    (*graph.op(value) == Op::Linear).then_some(value)
}
