//! `dce`: removes what nothing needs.
//!
//! Contract: a value stays when an output needs it, or what is appended to a cache, since the next step reads that; so do
//! inputs. Everything else goes. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = silu %0 : f32[T,4]
//!   %2 = add %0, %0 : f32[T,4]
//!   return %2
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("dce").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = add %0, %0 : f32[T,4]
//!   return %1
//! }
//! "#);
//! ```

use std::collections::BTreeSet;

use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, ValueId};

/// The pass.
pub(crate) struct Dce;

impl Pass for Dce {
    fn id(&self) -> &'static str {
        "dce"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let needed = needed(graph);
        let dead = |v: &ValueId| !needed.contains(v) && !matches!(graph.op(*v), Op::Input { .. });
        // Removing the last user of a value removes the value too.
        let roots = |v: &ValueId| dead(v) && graph.users(*v).is_empty();
        Ok(graph.schedule().into_iter().filter(roots).map(|v| remove(graph, v)).collect())
    }
}

fn remove(graph: &Graph, value: ValueId) -> Patch {
    let op = graph.op(value);
    let mut patch = Patch::new(op.name().map_or_else(|| op.mnemonic().into(), ToString::to_string));
    patch.remove(value);
    patch
}

fn needed(graph: &Graph) -> BTreeSet<ValueId> {
    let appends = graph.schedule().into_iter().filter(|v| graph.op(*v).appends());
    let mut stack: Vec<ValueId> = appends.chain(graph.outputs.iter().copied()).collect();
    let mut needed = BTreeSet::new();
    while let Some(value) = stack.pop() {
        if needed.insert(value) {
            stack.extend(graph.operands(value));
        }
    }
    needed
}
