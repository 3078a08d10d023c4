//! Expressions over constants: what is known before a step runs, and what a plan holds as a weight.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{Graph, Op, ValueId};

/// The values that depend on constants only, constants included.
pub fn constant_values(graph: &Graph) -> BTreeSet<ValueId> {
    let mut constant = BTreeSet::new();
    for value in graph.schedule() {
        let is = match graph.op(value) {
            Op::Const { .. } => true,
            op => !op.is_source() && graph.operands(value).iter().all(|v| constant.contains(v)),
        };
        if is {
            constant.insert(value);
        }
    }
    constant
}

/// True for a value that depends on constants only.
pub fn is_constant(graph: &Graph, value: ValueId) -> bool {
    let (mut stack, mut seen) = (vec![value], BTreeSet::new());
    while let Some(value) = stack.pop() {
        if !seen.insert(value) {
            continue;
        }
        let op = graph.op(value);
        if op.is_source() && !matches!(op, Op::Const { .. }) {
            return false;
        }
        stack.extend(graph.operands(value));
    }
    true
}

/// The name of the first constant of an expression, by which it is known in logs and in artifacts.
pub fn leaf_name(graph: &Graph, value: ValueId) -> Arc<str> {
    let mut leaf = value;
    while let Some(first) = graph.operands(leaf).first() {
        leaf = *first;
    }
    graph.op(leaf).name().cloned().unwrap_or_else(|| "constant".into())
}
