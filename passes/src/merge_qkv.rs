//! `merge-qkv`: the projections of queries, keys and values as one linear.
//!
//! Contract: where the three operands of an attention go back, each through norms per head, rope, scales and caches, to
//! linears of the same `x` with weights of one format, those become slices of one linear whose weight has the rows of all
//! three, queries first. Their biases are merged too when all three have one. Fires only when each projection has no
//! other use. Each output channel is computed as before: exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,8]
//!   %1 = const {name="q"} : bf16[8,8]
//!   %2 = linear %0, %1 : f32[T,8]
//!   %3 = cache {name="k.0"} : f32[P,4]
//!   %4 = const {name="k"} : bf16[4,8]
//!   %5 = linear %0, %4 : f32[T,4]
//!   %6 = kv_append %3, %5 : f32[P+T,4]
//!   %7 = cache {name="v.0"} : f32[P,4]
//!   %8 = const {name="v"} : bf16[4,8]
//!   %9 = linear %0, %8 : f32[T,4]
//!   %10 = kv_append %7, %9 : f32[P+T,4]
//!   %11 = attention %2, %6, %10 {heads=2, kv_heads=1, scale=0.5, p=f32} : f32[T,8]
//!   return %11
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("merge-qkv").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,8]
//!   %1 = const {name="q"} : bf16[8,8]
//!   %2 = const {name="k"} : bf16[4,8]
//!   %3 = concat %1, %2 : bf16[12,8]
//!   %4 = const {name="v"} : bf16[4,8]
//!   %5 = concat %3, %4 : bf16[16,8]
//!   %6 = linear %0, %5 : f32[T,16]
//!   %7 = slice %6 {start=0, size=8} : f32[T,8]
//!   %8 = cache {name="k.0"} : f32[P,4]
//!   %9 = slice %6 {start=8, size=4} : f32[T,4]
//!   %10 = kv_append %8, %9 : f32[P+T,4]
//!   %11 = cache {name="v.0"} : f32[P,4]
//!   %12 = slice %6 {start=12, size=4} : f32[T,4]
//!   %13 = kv_append %11, %12 : f32[P+T,4]
//!   %14 = attention %7, %10, %13 {heads=2, kv_heads=1, scale=0.5, p=f32} : f32[T,8]
//!   return %14
//! }
//! "#);
//! ```

use fireq_ir::{Graph, Op, PassError, Patch, ValueId};

use crate::merge::merge;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    if !matches!(graph.op(value), Op::Attention { .. }) {
        return None;
    }
    let projections: Option<Vec<ValueId>> =
        graph.operands(value).into_iter().map(|v| projection(graph, v)).collect();
    merge(graph, &projections?)
}

/// The linear behind an operand of attention.
fn projection(graph: &Graph, mut value: ValueId) -> Option<ValueId> {
    loop {
        let next = match graph.op(value) {
            Op::Linear => return Some(value),
            Op::KvAppend => 1,
            Op::Rope | Op::RmsNorm { .. } | Op::Scale | Op::Bias | Op::Quantize { .. } => 0,
            _ => return None,
        };
        value = graph.operands(value)[next];
    }
}
