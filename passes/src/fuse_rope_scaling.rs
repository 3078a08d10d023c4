//! `fuse-rope-scaling`: rope, the scaling after it, quantization and cache append as one operation on each side of
//! attention. This is where the post-RoPE scaling of FireQ (section 5) becomes free.
//!
//! Contract: `quantize(scale(rope(x, table), s))` becomes `rope_quantize(x, table, s)`, and the same appended to a cache
//! becomes `rope_append(cache, x, table, s)` in the cache's format, with the same `fit`; the scale, and for caches of plain numbers the
//! quantization, may be absent. What is quantized and appended without rope becomes `quantize_append`. Fires when nothing
//! else reads what lies between. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="k"} : f32[T,64]
//!   %1 = input {name="table"} : f32[T,64]
//!   %2 = cache {name="k.0"} : i4<g64:e4m3>[P,64]
//!   %3 = rope %0, %1 : f32[T,64]
//!   %4 = const {name="s"} : f32[64]
//!   %5 = scale %3, %4 : f32[T,64]
//!   %6 = quantize %5 {to=i4<g64:e4m3>} : i4<g64:e4m3>[T,64]
//!   %7 = kv_append %2, %6 : i4<g64:e4m3>[P+T,64]
//!   return %7
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("fuse-rope-scaling").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="k"} : f32[T,64]
//!   %1 = input {name="table"} : f32[T,64]
//!   %2 = cache {name="k.0"} : i4<g64:e4m3>[P,64]
//!   %3 = const {name="s"} : f32[64]
//!   %4 = rope_append %2, %0, %1, %3 : i4<g64:e4m3>[P+T,64]
//!   return %4
//! }
//! "#);
//! ```

use fireq_ir::{Fit, Graph, Op, PassError, Patch, Ref, ValueId};

use crate::pattern::fusible;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let operands = graph.operands(value);
    match graph.op(value) {
        Op::Quantize { to, fit: Fit::Absmax } => {
            // Rows on their way into a cache are the append's to fuse.
            let appended = graph.users(value).iter().any(|user| graph.op(*user).appends());
            let rope = rope(graph, operands[0]).filter(|_| !appended)?;
            Some(fuse(graph, value, Op::RopeQuantize { to: to.clone() }, rope))
        }
        Op::KvAppend => append(graph, value, operands[0], operands[1]),
        _ => None,
    }
}

fn append(graph: &Graph, value: ValueId, cache: ValueId, rows: ValueId) -> Option<Result<Patch, PassError>> {
    let quantized = fusible(graph, rows, |op| matches!(op, Op::Quantize { .. }));
    let fit = if let Op::Quantize { fit, .. } = graph.op(rows) { *fit } else { Fit::Absmax };
    let plain = quantized.as_ref().map_or(rows, |operands| operands[0]);
    let (op, mut operands) = match (rope(graph, plain), quantized) {
        (Some(rope), _) => (Op::RopeAppend { fit }, rope),
        (None, Some(operands)) => (Op::QuantizeAppend { fit }, operands),
        (None, None) => return None,
    };
    operands.insert(0, cache);
    Some(fuse(graph, value, op, operands))
}

/// The operands of the rope, and of the scale after it, that make a value.
fn rope(graph: &Graph, value: ValueId) -> Option<Vec<ValueId>> {
    let scaled = fusible(graph, value, |op| *op == Op::Scale);
    let turned = scaled.as_ref().map_or(value, |operands| operands[0]);
    let mut operands = fusible(graph, turned, |op| *op == Op::Rope)?;
    operands.extend(scaled.map(|operands| operands[1]));
    Some(operands)
}

fn fuse(graph: &Graph, value: ValueId, op: Op, operands: Vec<ValueId>) -> Result<Patch, PassError> {
    let name = operands.iter().find_map(|v| graph.op(*v).name());
    let mut patch = Patch::new(name.map_or(op.mnemonic(), |name| name));
    let operands: Vec<Ref> = operands.into_iter().map(Ref::from).collect();
    let fused = patch.add(graph, op, &operands)?;
    patch.replace(value, fused);
    Ok(patch)
}
