//! `push-layout`: transposes and reshapes move towards constants, and vanish where they meet their like.
//!
//! Contract: a transpose of a transpose is the value itself; a reshape of a reshape is one reshape, and a reshape to the
//! same shape none. A transpose or reshape of an element-wise result becomes that operation on transposed or reshaped
//! operands where each of those vanishes in turn: because the operand is a transpose or reshape itself, or depends on
//! constants only. Run-time values gain no work. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="w"} : f32[4,8]
//!   %2 = silu %1 : f32[4,8]
//!   %3 = transpose %2 : f32[8,4]
//!   %4 = transpose %3 : f32[4,8]
//!   %5 = transpose %4 : f32[8,4]
//!   %6 = linear %0, %5 : f32[T,8]
//!   return %6
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("push-layout").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="w"} : f32[4,8]
//!   %2 = transpose %1 : f32[8,4]
//!   %3 = silu %2 : f32[8,4]
//!   %4 = linear %0, %3 : f32[T,8]
//!   return %4
//! }
//! "#);
//! ```

use fireq_ir::expression::is_constant;
use fireq_ir::{Graph, Op, PassError, Patch, Ref, ValueId};

/// The patch for one value, where the pass fires.
pub(crate) fn site(graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
    let layout = graph.op(value);
    let [x] = graph.operands(value)[..] else { return None };
    let inner = graph.operands(x);
    match (layout, graph.op(x)) {
        (Op::Reshape { .. }, _) if graph.ty(x) == graph.ty(value) => Some(Ok(replace(graph, value, x))),
        (Op::Transpose, Op::Transpose) => Some(Ok(replace(graph, value, inner[0]))),
        (Op::Reshape { .. }, Op::Reshape { .. }) => Some(rebuild(graph, value, layout, &[inner[0].into()])),
        (Op::Transpose | Op::Reshape { .. }, op) if is_elementwise(op) => {
            inner.iter().all(|v| vanishes(graph, layout, *v)).then(|| push(graph, value, layout, x, &inner))
        }
        _ => None,
    }
}

fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Silu | Op::Mul | Op::Add)
}

/// True when `layout` costs nothing on `value` at run time.
fn vanishes(graph: &Graph, layout: &Op, value: ValueId) -> bool {
    let undone = [layout, graph.op(value)];
    matches!(undone, [Op::Transpose, Op::Transpose] | [Op::Reshape { .. }, Op::Reshape { .. }])
        || is_constant(graph, value)
}

fn push(
    graph: &Graph,
    value: ValueId,
    layout: &Op,
    x: ValueId,
    operands: &[ValueId],
) -> Result<Patch, PassError> {
    let mut patch = Patch::new(layout.mnemonic());
    let moved = operands.iter().map(|v| patch.add(graph, layout.clone(), &[(*v).into()]));
    let moved: Vec<Ref> = moved.collect::<Result<_, _>>()?;
    let result = patch.add(graph, graph.op(x).clone(), &moved)?;
    patch.replace(value, result);
    Ok(patch)
}

fn rebuild(graph: &Graph, value: ValueId, op: &Op, operands: &[Ref]) -> Result<Patch, PassError> {
    let mut patch = Patch::new(op.mnemonic());
    let result = patch.add(graph, op.clone(), operands)?;
    patch.replace(value, result);
    Ok(patch)
}

fn replace(graph: &Graph, value: ValueId, by: ValueId) -> Patch {
    let mut patch = Patch::new(graph.op(value).mnemonic());
    patch.replace(value, by);
    patch
}
