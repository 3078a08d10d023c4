//! Where a graph falls into blocks.

use std::collections::{BTreeMap, BTreeSet};

use fireq_ir::{Graph, Op, ValueId};

/// The values between which blocks lie, each with the next: sums and gathers that are all that is live of what depends on
/// the graph's first input.
pub(super) fn split(graph: &Graph) -> Vec<(ValueId, ValueId)> {
    let stream = stream_values(graph);
    let mut uses: BTreeMap<ValueId, usize> = BTreeMap::new();
    for value in &stream {
        graph.operands(*value).into_iter().for_each(|v| *uses.entry(v).or_default() += 1);
    }
    let (mut live, mut cuts) = (BTreeSet::new(), vec![]);
    for value in stream {
        for operand in graph.operands(value) {
            let left = uses.entry(operand).or_insert(1);
            *left -= 1;
            if *left == 0 {
                live.remove(&operand);
            }
        }
        if uses.contains_key(&value) {
            live.insert(value);
        }
        if matches!(graph.op(value), Op::Add | Op::LinearAdd | Op::Gather) && live.iter().eq([&value]) {
            cuts.push(value);
        }
    }
    cuts.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// The values that depend on the first input, in schedule order.
pub(super) fn stream_values(graph: &Graph) -> Vec<ValueId> {
    let mut found: BTreeSet<ValueId> = graph.inputs().first().copied().into_iter().collect();
    let mut order = vec![];
    for value in graph.schedule() {
        if graph.operands(value).iter().any(|v| found.contains(v)) {
            found.insert(value);
            order.push(value);
        }
    }
    order
}
