//! Which block of a model a value belongs to.

use std::collections::{BTreeMap, BTreeSet};

use fireq_ir::expression::constant_values;
use fireq_ir::{Graph, Op, ValueId};

/// Where a value stands in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Before the first block: embedding and rope's table.
    Start,
    /// In the block of this number.
    Layer(usize),
    /// After the last block.
    End,
}

/// The place of every value, from the numbers in the names of constants and caches: `model.layers.7.…`, `k.7`. Constants
/// stand where they are used first.
pub(super) fn places(graph: &Graph) -> BTreeMap<ValueId, Place> {
    let constants = constant_values(graph);
    let schedule = graph.schedule();
    let mut places: BTreeMap<ValueId, Place> = BTreeMap::new();
    for value in &schedule {
        let own = graph.op(*value).name().and_then(|name| number(name)).map_or(Place::Start, Place::Layer);
        let operands = graph.operands(*value).into_iter().map(|v| places[&v]);
        places.insert(*value, operands.fold(own, Place::max));
    }
    for value in end(graph, &constants) {
        places.insert(value, Place::End);
    }
    for value in schedule.iter().rev().filter(|v| constants.contains(v)) {
        let first = graph.users(*value).into_iter().map(|user| places[&user]).min();
        places.extend(first.map(|place| (*value, place)));
    }
    places
}

/// The number in a name: after `layers.`, or at the end of a cache's name.
pub(crate) fn number(name: &str) -> Option<usize> {
    let digits = |text: &str| text.split('.').next().and_then(|part| part.parse().ok());
    match name.split_once("layers.") {
        Some((_, rest)) => digits(rest),
        None => name.strip_prefix("k.").or(name.strip_prefix("v.")).and_then(digits),
    }
}

/// What lies between the last sum of the residual stream and the outputs.
fn end(graph: &Graph, constants: &BTreeSet<ValueId>) -> BTreeSet<ValueId> {
    let numbered = |value: ValueId| {
        let mut stack = graph.operands(value);
        while let Some(operand) = stack.pop().filter(|v| constants.contains(v)) {
            if graph.op(operand).name().is_some_and(|name| number(name).is_some()) {
                return true;
            }
            stack.extend(graph.operands(operand));
        }
        false
    };
    let is_numbered_anywhere =
        graph.schedule().into_iter().any(|v| graph.op(v).name().is_some_and(|n| number(n).is_some()));
    let mut end = BTreeSet::new();
    let mut stack = if is_numbered_anywhere { graph.outputs.clone() } else { vec![] };
    while let Some(value) = stack.pop() {
        let op = graph.op(value);
        let stops = op.is_source()
            || matches!(op, Op::Add | Op::LinearAdd)
            || constants.contains(&value)
            || numbered(value);
        if !stops && end.insert(value) {
            stack.extend(graph.operands(value));
        }
    }
    end
}
