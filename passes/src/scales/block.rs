//! Blocks: pieces of a graph between cuts, small enough for an e-graph, and the way into one and back.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;
use fireq_ir::expression::{constant_values, leaf_name};
use fireq_ir::{Graph, Op, ValueId};

use super::extract::{Cost, node_cost};
use super::facts::{self, Facts, Vector};
use super::language::{Kind, Node};
use crate::pattern::{numbers, used_once};

/// Connected values that scales move through, in schedule order; the residual stream's sums cut one from the next.
pub(super) struct Block {
    values: Vec<ValueId>,
}

/// The most values of a block; longer chains, which no decoder has between two sums, are cut.
const LARGEST: usize = 256;

/// The blocks in which a scale is applied at run time.
pub(super) fn blocks(graph: &Graph) -> Vec<Block> {
    let constants = constant_values(graph);
    let schedule = graph.schedule();
    let mut group: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut members: Vec<Vec<ValueId>> = vec![];
    for value in &schedule {
        if constants.contains(value) || !movable(graph, *value) {
            continue;
        }
        let mut joined: Vec<usize> =
            graph.operands(*value).iter().filter_map(|v| group.get(v).copied()).collect();
        joined.sort_unstable();
        joined.dedup();
        let mut size = 1;
        joined.retain(|group| {
            let fits = size + members[*group].len() <= LARGEST;
            size += if fits { members[*group].len() } else { 0 };
            fits
        });
        let home = joined.first().copied().unwrap_or(members.len());
        members.resize_with(members.len().max(home + 1), Vec::new);
        for other in joined.into_iter().skip(1) {
            let moved = std::mem::take(&mut members[other]);
            group.extend(moved.iter().map(|v| (*v, home)));
            members[home].extend(moved);
        }
        members[home].push(*value);
        group.insert(*value, home);
    }
    let order: BTreeMap<ValueId, usize> = schedule.into_iter().zip(0..).collect();
    for values in &mut members {
        values.sort_unstable_by_key(|v| order[v]);
    }
    let scaled = |values: &Vec<ValueId>| values.iter().any(|v| *graph.op(*v) == Op::Scale);
    members.into_iter().filter(scaled).map(|values| Block { values }).collect()
}

/// A cache that something else reads too would need both contents at once.
fn movable(graph: &Graph, value: ValueId) -> bool {
    let op = graph.op(value);
    Kind::of(op).is_some() && (*op != Op::KvAppend || used_once(graph, value))
}

/// A block in an e-graph.
pub(super) struct Encoded {
    pub egraph: facts::Graph,
    /// Values that something outside of the block reads, or nothing at all, with their classes.
    pub roots: Vec<(ValueId, Id)>,
    /// The values of the block and what they read, with their classes as they went in.
    ids: BTreeMap<ValueId, Id>,
}

impl Block {
    /// Puts the block into an e-graph; an `explained` one records why values are equal, which takes time.
    pub fn encode(&self, graph: &Graph, explained: bool) -> Encoded {
        let egraph = facts::Graph::new(Facts::default());
        let egraph = if explained { egraph.with_explanations_enabled() } else { egraph };
        let mut encoded = Encoded { egraph, roots: vec![], ids: BTreeMap::new() };
        let inside: BTreeSet<ValueId> = self.values.iter().copied().collect();
        for value in &self.values {
            encoded.value(graph, *value);
            let users = graph.users(*value);
            let needed = users.is_empty() || users.iter().any(|user| !inside.contains(user));
            if needed || graph.outputs.contains(value) {
                encoded.roots.push((*value, encoded.ids[value]));
            }
        }
        encoded.egraph.rebuild();
        encoded
    }
}

impl Encoded {
    fn value(&mut self, graph: &Graph, value: ValueId) {
        let op = graph.op(value);
        let kind = Kind::of(op).expect("a block holds what scales move through");
        let mut children = vec![];
        if kind.has_attrs() {
            self.egraph.analysis.ops.push(op.clone());
            let attrs = Kind::Attrs(self.egraph.analysis.ops.len() - 1);
            children.push(self.egraph.add(Node { kind: attrs, children: vec![] }));
        }
        for operand in graph.operands(value) {
            let known = self.ids.get(&operand).copied();
            children.push(known.unwrap_or_else(|| self.leaf(graph, operand)));
        }
        let id = self.egraph.add(Node { kind, children });
        self.ids.insert(value, id);
    }

    fn leaf(&mut self, graph: &Graph, value: ValueId) -> Id {
        let ty = graph.ty(value).clone();
        let facts = &mut self.egraph.analysis;
        let vector = numbers(graph, value).filter(|_| ty.shape.0.len() == 1);
        let kind = if let Some(numbers) = vector {
            let name = leaf_name(graph, value).to_string();
            Kind::Vector(facts.intern(Vector { numbers, ty, origin: Some(value), name }))
        } else {
            facts.leaves.push((value, ty, fireq_ir::expression::is_constant(graph, value)));
            Kind::Leaf(facts.leaves.len() - 1)
        };
        let id = self.egraph.add(Node { kind, children: vec![] });
        self.ids.insert(value, id);
        id
    }

    /// The block's own forms, and what they cost together.
    pub fn known(&self, block: &Block) -> (BTreeSet<Node>, Cost) {
        let node = |value: &ValueId| self.egraph.id_to_node(self.ids[value]).clone();
        let canonical = |node: Node| {
            let children = node.children.iter().map(|id| self.egraph.find(*id)).collect();
            Node { kind: node.kind, children }
        };
        let nodes: BTreeSet<Node> = block.values.iter().map(|v| canonical(node(v))).collect();
        let cost = nodes.iter().map(|node| node_cost(&self.egraph, node)).sum();
        (nodes, cost)
    }
}
