//! `new-pass`: SiLU of the channels that are wanted, instead of all of them.
//!
//! Contract: say what becomes what, when it fires, when it does not, and what it may do to the numbers. This one:
//! `slice(silu(x))` becomes `silu(slice(x))`. Fires when nothing else reads the SiLU. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,8]
//!   %1 = silu %0 : f32[T,8]
//!   %2 = slice %1 {start=2, size=4} : f32[T,4]
//!   return %2
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("new-pass").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,8]
//!   %1 = slice %0 {start=2, size=4} : f32[T,4]
//!   %2 = silu %1 : f32[T,4]
//!   return %2
//! }
//! "#);
//! ```

use fireq_ir::{Graph, Op, PassError, Patch, ValueId};

use crate::pattern::fusible;

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let Op::Slice { .. } = graph.op(value) else { return None };
    let x = fusible(graph, graph.operands(value)[0], |op| *op == Op::Silu)?[0];
    Some(rewrite(graph, value, x))
}

/// New nodes, and the values that they replace.
fn rewrite(graph: &Graph, value: ValueId, x: ValueId) -> Result<Patch, PassError> {
    let mut patch = Patch::new("silu");
    let slice = patch.add(graph, graph.op(value).clone(), &[x.into()])?;
    let silu = patch.add(graph, Op::Silu, &[slice])?;
    patch.replace(value, silu);
    Ok(patch)
}
