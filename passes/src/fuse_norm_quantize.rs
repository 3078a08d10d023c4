//! `fuse-norm-quantize`: a norm and the quantization that reads it as one operation.
//!
//! Contract: `quantize(rms_norm(x, w))` becomes `norm_quantize(x, w)`. Fires when nothing else reads the norm. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="norm"} : bf16[64]
//!   %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,64]
//!   %3 = quantize %2 {to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
//!   return %3
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("fuse-norm-quantize").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="norm"} : bf16[64]
//!   %2 = norm_quantize %0, %1 {eps=1e-5, to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
//!   return %2
//! }
//! "#);
//! ```

use fireq_ir::expression::leaf_name;
use fireq_ir::{Fit, Graph, Op, PassError, Patch, Ref, ValueId};

use crate::pattern::fusible;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let Op::Quantize { to, fit: Fit::Absmax } = graph.op(value) else { return None };
    let norm = graph.operands(value)[0];
    let Op::RmsNorm { eps } = *graph.op(norm) else { return None };
    let operands = fusible(graph, norm, |op| matches!(op, Op::RmsNorm { .. }))?;
    let mut patch = Patch::new(&*leaf_name(graph, operands[1]));
    let operands: Vec<Ref> = operands.into_iter().map(Ref::from).collect();
    let fused = patch.add(graph, Op::NormQuantize { eps, to: to.clone() }, &operands);
    Some(fused.map_err(PassError::from).map(|fused| {
        patch.replace(value, fused);
        patch
    }))
}
