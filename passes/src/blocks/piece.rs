//! A block taken out of a graph, and put back.

use std::collections::{BTreeMap, BTreeSet};

use fireq_ir::expression::{constant_values, leaf_name};
use fireq_ir::{Graph, Op, PassError, Patch, PatchError, Ref, ValueId};

use super::split::stream_values;
use crate::piece::Piece;

/// A piece of a graph between two values of the residual stream.
pub(super) struct Block {
    /// The first of its weights.
    pub name: String,
    pub graph: Graph,
    /// Where the stream comes from, and what the block makes of it.
    pub start: ValueId,
    end: ValueId,
    /// What each input stands for.
    pub inputs: BTreeMap<String, ValueId>,
}

/// Every block between two values of `cuts`.
pub(super) fn take(whole: &Graph, cuts: &[(ValueId, ValueId)]) -> Vec<Block> {
    let stream: BTreeSet<ValueId> = stream_values(whole).into_iter().collect();
    let constants = constant_values(whole);
    // Expressions over constants that are used here are part of it, and so are caches.
    let part =
        |v: ValueId| stream.contains(&v) || constants.contains(&v) || matches!(whole.op(v), Op::Cache { .. });
    let block = |&(start, end): &(ValueId, ValueId)| {
        let Piece { graph, inputs, .. } = Piece::back_to(whole, &[end], |v| v == start || !part(v));
        let linear = graph.schedule().into_iter().find(|v| *graph.op(*v) == Op::Linear);
        let name = linear.map_or_else(|| "block".into(), |v| leaf_name(&graph, graph.operands(v)[1]));
        Block { name: name.to_string(), graph, start, end, inputs }
    };
    cuts.iter().map(block).collect()
}

impl Block {
    /// The patch that puts `after` where the block was taken from.
    pub fn give_back(&self, whole: &Graph, after: &Graph) -> Result<Patch, PassError> {
        let mut patch = Patch::new(self.name.clone());
        let constants = constants_by_name(whole);
        let mut copies: BTreeMap<ValueId, Ref> = BTreeMap::new();
        for value in after.schedule() {
            let operands: Vec<Ref> = after.operands(value).iter().map(|v| copies[v]).collect();
            let ty = after.ty(value).clone();
            let copy = match after.op(value) {
                Op::Input { name } => (*self.inputs.get(&**name).ok_or(PatchError::Stale)?).into(),
                Op::Const { name } => match (constants.get(&**name), after.constants.get(name)) {
                    (Some(value), _) => (*value).into(),
                    (None, Some(data)) => patch.constant(name, ty, data.clone()),
                    (None, None) => continue,
                },
                Op::Cache { name } => patch.cache(name.clone(), ty),
                op => patch.add(whole, op.clone(), &operands)?,
            };
            copies.insert(value, copy);
        }
        patch.replace(self.end, copies[&after.outputs[0]]);
        Ok(patch)
    }
}

fn constants_by_name(graph: &Graph) -> BTreeMap<&str, ValueId> {
    let constant = |value| match graph.op(value) {
        Op::Const { name } => Some((&**name, value)),
        _ => None,
    };
    graph.schedule().into_iter().filter_map(constant).collect()
}
