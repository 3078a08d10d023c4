//! A block taken out of a graph, and put back.

use std::collections::{BTreeMap, BTreeSet};

use fireq_ir::expression::{constant_values, leaf_name};
use fireq_ir::{Graph, Op, PassError, Patch, Ref, ValueId};

use super::split::stream_values;

/// A piece of a graph as a graph of its own.
pub(super) struct Block {
    pub name: String,
    pub graph: Graph,
    /// Where the stream comes from, and what the block makes of it.
    pub start: ValueId,
    end: ValueId,
    /// What each input stands for.
    pub inputs: BTreeMap<String, ValueId>,
}

impl Block {
    /// What lies between two values.
    pub fn take(whole: &Graph, (start, end): (ValueId, ValueId)) -> Self {
        let inside = between(whole, start, end);
        let mut block = Block {
            name: String::new(),
            graph: Graph::new(&whole.name),
            start,
            end,
            inputs: BTreeMap::new(),
        };
        let mut copies = BTreeMap::from([(start, block.input(whole, start, "x"))]);
        for value in whole.schedule() {
            if inside.contains(&value) {
                let operands: Vec<ValueId> = whole.operands(value).iter().map(|v| copies[v]).collect();
                copies.insert(
                    value,
                    block.graph.push(whole.op(value).clone(), whole.ty(value).clone(), &operands),
                );
            } else if value != start && reads(whole, value, &inside) {
                let copy = match whole.op(value) {
                    Op::Const { name } => {
                        let data = whole.constants.get(name).cloned();
                        block.graph.constants.extend(data.map(|data| (name.clone(), data)));
                        block.graph.push(whole.op(value).clone(), whole.ty(value).clone(), &[])
                    }
                    Op::Input { name } => block.input(whole, value, name),
                    _ => block.input(whole, value, &format!("beside.{}", block.inputs.len())),
                };
                copies.insert(value, copy);
            }
        }
        block.graph.outputs.push(copies[&end]);
        let weight = |v: &ValueId| *whole.op(*v) == Op::Linear && inside.contains(v);
        let linear = whole.schedule().into_iter().find(weight);
        block.name =
            linear.map_or_else(|| "block".into(), |v| leaf_name(whole, whole.operands(v)[1]).to_string());
        block
    }

    fn input(&mut self, whole: &Graph, value: ValueId, name: &str) -> ValueId {
        self.inputs.insert(name.into(), value);
        self.graph.input(name, whole.ty(value).clone())
    }

    /// The patch that puts `after` where the block was taken from.
    pub fn give_back(&self, whole: &Graph, after: &Graph) -> Result<Patch, PassError> {
        let mut patch = Patch::new(self.name.clone());
        let constants = constants_by_name(whole);
        let mut copies: BTreeMap<ValueId, Ref> = BTreeMap::new();
        for value in after.schedule() {
            let operands: Vec<Ref> = after.operands(value).iter().map(|v| copies[v]).collect();
            let ty = after.ty(value).clone();
            let copy = match after.op(value) {
                Op::Input { name } => self.inputs[&**name].into(),
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

/// What `end` is computed from, back to `start`, to what depends on neither, and to constants; expressions over constants
/// that are used here are part of it.
fn between(graph: &Graph, start: ValueId, end: ValueId) -> BTreeSet<ValueId> {
    let stream: BTreeSet<ValueId> = stream_values(graph).into_iter().collect();
    let constants = constant_values(graph);
    let (mut inside, mut stack) = (BTreeSet::new(), vec![end]);
    while let Some(value) = stack.pop() {
        let source = matches!(graph.op(value), Op::Const { .. } | Op::Input { .. });
        let cache = matches!(graph.op(value), Op::Cache { .. });
        let part = cache || stream.contains(&value) || constants.contains(&value);
        if value != start && part && !source && inside.insert(value) {
            stack.extend(graph.operands(value));
        }
    }
    inside
}

fn reads(graph: &Graph, value: ValueId, inside: &BTreeSet<ValueId>) -> bool {
    graph.users(value).iter().any(|user| inside.contains(user))
}
