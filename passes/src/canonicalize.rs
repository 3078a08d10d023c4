//! `canonicalize`: of several ways to write the same, one.
//!
//! Contract: the operands of `add` and `mul` stand in schedule order; `scale` and `scale_rows` by ones, and slices of all
//! channels, are the value itself; a slice of a slice is one slice. Never fires where a number would change, such as
//! `x + 0`, which loses the sign of a negative zero. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = silu %0 : f32[T,4]
//!   %2 = mul %1, %0 : f32[T,4]
//!   %3 = const {name="s", data=[1.0, 1.0, 1.0, 1.0]} : f32[4]
//!   %4 = scale %2, %3 : f32[T,4]
//!   return %4
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("canonicalize").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = silu %0 : f32[T,4]
//!   %2 = mul %0, %1 : f32[T,4]
//!   return %2
//! }
//! "#);
//! ```

use std::collections::BTreeMap;

use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, Ref, ValueId};

use crate::pattern::is_ones;

/// The pass.
pub(crate) struct Canonicalize;

impl Pass for Canonicalize {
    fn id(&self) -> &'static str {
        "canonicalize"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let schedule = graph.schedule();
        let order: BTreeMap<ValueId, usize> = schedule.iter().copied().zip(0..).collect();
        schedule.into_iter().filter_map(|value| site(graph, &order, value)).collect()
    }
}

fn site(graph: &Graph, order: &BTreeMap<ValueId, usize>, value: ValueId) -> Option<Result<Patch, PassError>> {
    let operands = graph.operands(value);
    let same_type = |x: &ValueId| graph.ty(*x) == graph.ty(value);
    let mut patch = Patch::new(graph.op(value).mnemonic());
    let replacement: Ref = match (graph.op(value), operands.as_slice()) {
        (Op::Scale | Op::ScaleRows, [x, s]) if same_type(x) && is_ones(graph, *s) => (*x).into(),
        (Op::Slice { .. }, [x]) if same_type(x) => (*x).into(),
        (op @ (Op::Add | Op::Mul), [a, b]) if order[a] > order[b] => {
            match patch.add(graph, op.clone(), &[(*b).into(), (*a).into()]) {
                Ok(swapped) => swapped,
                Err(error) => return Some(Err(error.into())),
            }
        }
        (Op::Slice { start, size }, [x]) => {
            let Op::Slice { start: outer, .. } = *graph.op(*x) else { return None };
            let op = Op::Slice { start: start + outer, size: *size };
            match patch.add(graph, op, &[graph.operands(*x)[0].into()]) {
                Ok(slice) => slice,
                Err(error) => return Some(Err(error.into())),
            }
        }
        _ => return None,
    };
    patch.replace(value, replacement);
    Some(Ok(patch))
}
