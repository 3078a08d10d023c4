//! `cse`: common subexpressions, computed once.
//!
//! Contract: of the values with the same operation, attributes and operands, all but the first are replaced by the
//! first. Operands count as the same when they were merged themselves, so whole trees merge in one round. Fires for
//! every operation and for constants of one name; never for inputs and caches, whose identity is their meaning, and
//! not for `mul a, b` against `mul b, a`. Exact: what is left computes the same bits.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = quantize %0 {to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
//!   %2 = const {name="w"} : i4<g128:e4m3,row:f32>[64,64]
//!   %3 = linear %1, %2 : f32[T,64]
//!   %4 = quantize %0 {to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
//!   %5 = linear %4, %2 : f32[T,64]
//!   %6 = add %3, %5 : f32[T,64]
//!   return %6
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! assert_eq!(fireq_passes::pipeline("cse").unwrap().run(&mut graph).unwrap(), 2);
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = quantize %0 {to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
//!   %2 = const {name="w"} : i4<g128:e4m3,row:f32>[64,64]
//!   %3 = linear %1, %2 : f32[T,64]
//!   %4 = add %3, %3 : f32[T,64]
//!   return %4
//! }
//! "#);
//! ```

use std::collections::BTreeMap;

use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, ValueId};

/// The pass.
pub(crate) struct Cse;

impl Pass for Cse {
    fn id(&self) -> &'static str {
        "cse"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let duplicates = duplicates(graph).into_iter();
        Ok(duplicates.map(|(value, first)| merge(graph, value, first)).collect())
    }
}

fn merge(graph: &Graph, value: ValueId, first: ValueId) -> Patch {
    let op = graph.op(value);
    let mut patch = Patch::new(op.name().map_or_else(|| op.mnemonic().into(), ToString::to_string));
    patch.replace(value, first);
    patch
}

/// The values that repeat an earlier one, each with that one, in schedule order: operands before users.
fn duplicates(graph: &Graph) -> Vec<(ValueId, ValueId)> {
    let mut merged = BTreeMap::new();
    let mut seen: BTreeMap<_, Vec<ValueId>> = BTreeMap::new();
    let mut found = vec![];
    for value in graph.schedule() {
        let op = graph.op(value);
        if matches!(op, Op::Input { .. } | Op::Cache { .. }) {
            continue;
        }
        let operands = graph.operands(value).into_iter().map(|v| *merged.get(&v).unwrap_or(&v));
        let alike = seen.entry((op.mnemonic(), op.name(), operands.collect::<Vec<_>>())).or_default();
        // Attributes hold floats, which no map can be keyed by.
        let same = |first: &&ValueId| graph.op(**first) == op && graph.ty(**first) == graph.ty(value);
        match alike.iter().find(same) {
            Some(first) => {
                merged.insert(value, *first);
                found.push((value, *first));
            }
            None => alike.push(value),
        }
    }
    found
}
