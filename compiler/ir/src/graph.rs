//! The graph: tensors and mathematics, a DAG without buffers. The only file that names petgraph.

use std::collections::BTreeMap;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::infer::{InferError, infer};
use crate::{ConstData, Op, Type};

/// A value of a graph: the one result of a node. Stays valid while other nodes come and go, and never comes to name
/// another one: petgraph gives the index of a removed node to a new one, so the index alone would not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    index: NodeIndex,
    sequence: usize,
}

/// A node: an operation and the type of its result.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Type of the result: declared for sources, inferred for all else.
    pub ty: Type,
    /// Order of creation, unique: part of the node's [`ValueId`], and what [`Graph::schedule`] falls back on for nodes
    /// that no output needs.
    sequence: usize,
}

/// A directed acyclic graph of operations with named inputs, constants and caches, and an ordered list of outputs.
///
/// Edges run from operand to user, the operand slot in the edge weight; they are the only truth about operands.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The name printed in the header.
    pub name: String,
    /// Results of the graph.
    pub outputs: Vec<ValueId>,
    /// Data of constants by name.
    pub constants: BTreeMap<Arc<str>, ConstData>,
    inputs: Vec<ValueId>,
    nodes: StableDiGraph<Node, usize>,
    next_sequence: usize,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// Adds an input of a declared type.
    pub fn input(&mut self, name: &str, ty: Type) -> ValueId {
        self.push(Op::Input { name: name.into() }, ty, &[])
    }

    /// Adds the state of a KV cache of a declared type.
    pub fn cache(&mut self, name: &str, ty: Type) -> ValueId {
        self.push(Op::Cache { name: name.into() }, ty, &[])
    }

    /// Adds a constant of a declared type with its data.
    pub fn constant(&mut self, name: &str, ty: Type, data: ConstData) -> ValueId {
        self.constants.insert(name.into(), data);
        self.push(Op::Const { name: name.into() }, ty, &[])
    }

    /// Adds an operation; its type is inferred from its operands.
    pub fn add(&mut self, op: Op, operands: &[ValueId]) -> Result<ValueId, InferError> {
        let types: Vec<&Type> = operands.iter().map(|v| self.ty(*v)).collect();
        let ty = infer(&op, &types)?;
        Ok(self.push(op, ty, operands))
    }

    /// Adds a node of a given type without inference: for sources, and for graphs that the verifier will judge.
    pub fn push(&mut self, op: Op, ty: Type, operands: &[ValueId]) -> ValueId {
        let is_input = matches!(op, Op::Input { .. });
        let index = self.nodes.add_node(Node { op, ty, sequence: self.next_sequence });
        self.next_sequence += 1;
        for (slot, operand) in operands.iter().enumerate() {
            self.nodes.add_edge(operand.index, index, slot);
        }
        let id = self.value(index);
        if is_input {
            self.inputs.push(id);
        }
        id
    }

    /// The inputs, in order of creation.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The node behind a value.
    pub fn node(&self, value: ValueId) -> &Node {
        let node = &self.nodes[value.index];
        assert_eq!(node.sequence, value.sequence, "the value was removed");
        node
    }

    /// The operation that produces a value.
    pub fn op(&self, value: ValueId) -> &Op {
        &self.node(value).op
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.node(value).ty
    }

    /// False once a value was removed.
    pub fn contains(&self, value: ValueId) -> bool {
        self.nodes.node_weight(value.index).is_some_and(|node| node.sequence == value.sequence)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// True when there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The operands of a value, in slot order.
    pub fn operands(&self, value: ValueId) -> Vec<ValueId> {
        self.slots(value).into_iter().map(|(_, operand)| operand).collect()
    }

    /// The operands of a value with their slots, in slot order.
    pub fn slots(&self, value: ValueId) -> Vec<(usize, ValueId)> {
        let edges = self.nodes.edges_directed(value.index, Direction::Incoming);
        let mut slots: Vec<_> = edges.map(|e| (*e.weight(), self.value(e.source()))).collect();
        slots.sort_unstable();
        slots
    }

    /// The values that use a value, in order of creation; one that uses it twice is listed once.
    pub fn users(&self, value: ValueId) -> Vec<ValueId> {
        let neighbors = self.nodes.neighbors_directed(value.index, Direction::Outgoing);
        let mut users: Vec<_> = neighbors.map(|index| self.value(index)).collect();
        users.sort_unstable_by_key(|u| u.sequence);
        users.dedup();
        users
    }

    /// Every value in the one order in which graphs are printed, numbered and run: the inputs, then depth-first from
    /// the outputs, operands before users; what no output needs comes last, in order of creation.
    pub fn schedule(&self) -> Vec<ValueId> {
        let mut order = Vec::with_capacity(self.len());
        let mut seen = vec![false; self.nodes.node_indices().next_back().map_or(0, |n| n.index() + 1)];
        let mut unused: Vec<ValueId> = self.values().filter(|v| self.is_unused(*v)).collect();
        unused.sort_unstable_by_key(|v| v.sequence);
        for root in self.inputs.iter().chain(&self.outputs).chain(&unused) {
            self.visit(*root, &mut seen, &mut order);
        }
        order
    }

    fn visit(&self, root: ValueId, seen: &mut [bool], order: &mut Vec<ValueId>) {
        let mut stack = vec![(root, false)];
        while let Some((value, done)) = stack.pop() {
            if done {
                order.push(value);
            } else if !std::mem::replace(&mut seen[value.index.index()], true) {
                stack.push((value, true));
                stack.extend(self.operands(value).into_iter().rev().map(|v| (v, false)));
            }
        }
    }

    /// The name of the cache that a value is the next state of.
    pub(crate) fn appended_cache(&self, value: ValueId) -> Option<&Arc<str>> {
        let cache = self.op(value).appends().then(|| self.operands(value).first().copied())?;
        self.op(cache?).name()
    }

    fn is_unused(&self, value: ValueId) -> bool {
        self.nodes.neighbors_directed(value.index, Direction::Outgoing).next().is_none()
    }

    fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.nodes.node_indices().map(|index| self.value(index))
    }

    fn value(&self, index: NodeIndex) -> ValueId {
        ValueId { index, sequence: self.nodes[index].sequence }
    }

    /// A value that is its own ancestor, if there is one.
    pub fn find_cycle(&self) -> Option<ValueId> {
        petgraph::algo::toposort(&self.nodes, None).err().map(|cycle| self.value(cycle.node_id()))
    }

    /// Makes every user of `old` but those in `keep`, and every output that is `old`, use `new` instead.
    pub(crate) fn redirect_filtered(&mut self, old: ValueId, new: ValueId, keep: &[ValueId]) {
        let edges: Vec<_> = self
            .nodes
            .edges_directed(old.index, Direction::Outgoing)
            .filter(|e| !keep.contains(&self.value(e.target())))
            .map(|e| (e.id(), e.target(), *e.weight()))
            .collect();
        for (edge, user, slot) in edges {
            self.nodes.remove_edge(edge);
            self.nodes.add_edge(new.index, user, slot);
        }
        for output in self.outputs.iter_mut().filter(|o| **o == old) {
            *output = new;
        }
    }

    /// Removes `value` and then whatever only it used. Inputs, outputs and values in use stay, and so does what is appended
    /// to a cache, which the next step reads, unless another append took its place: to a cache named in `replaced`.
    pub(crate) fn remove_unused(&mut self, value: ValueId, replaced: &[Arc<str>]) {
        let mut stack = vec![value];
        while let Some(value) = stack.pop() {
            let keep = !self.contains(value)
                || !self.is_unused(value)
                || self.outputs.contains(&value)
                || self.inputs.contains(&value)
                || self.appended_cache(value).is_some_and(|cache| !replaced.contains(cache));
            if !keep {
                stack.extend(self.operands(value));
                self.nodes.remove_node(value.index);
            }
        }
    }
}
