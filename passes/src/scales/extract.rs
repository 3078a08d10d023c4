//! Extraction with the cost of a DAG: what two values share is paid once.
//!
//! Each class keeps the set of classes that its cheapest form needs, all roots use one choice per class, and forms that
//! pay only on their own are given up when all roots together are cheaper without them.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Sum;
use std::ops::Add;

use egg::{Id, Language};
use fireq_ir::{Dim, Type};

use super::facts::Graph;
use super::language::{Kind, Node};

/// What a form costs: first at run time, per token; then for constants, once. Compared in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Multiplications per token.
    pub run_time: u64,
    /// Elements of constants that are computed. A column of a weight counts twice a row: a row's scale leaves the groups
    /// of its codes as they are, and so producers are preferred to consumers.
    pub constants: u64,
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { run_time: self.run_time + other.run_time, constants: self.constants + other.constants }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}

/// The form chosen for each class that the roots need.
pub(super) type Choice = BTreeMap<Id, Node>;

/// The cheapest forms that were found for `roots`, and what they cost together. `known` are the block's own forms: where
/// there are more of a kind than these, something is computed twice, and doing without each new one is tried.
pub(super) fn extract(egraph: &Graph, roots: &[Id], known: &BTreeSet<Node>) -> Option<(Choice, Cost)> {
    let mut banned = BTreeSet::new();
    let (mut best, mut cost) = choose(egraph, roots, &banned)?;
    loop {
        let more = |kind: Kind| {
            let count =
                |nodes: &mut dyn Iterator<Item = &Node>| nodes.filter(|node| node.kind == kind).count();
            count(&mut best.values()) > count(&mut known.iter())
        };
        let new =
            |node: &&Node| node_cost(egraph, node).run_time > 0 && !known.contains(*node) && more(node.kind);
        let candidates: Vec<Node> = best.values().filter(new).cloned().collect();
        let without = |node: Node| {
            let mut banned = banned.clone();
            banned.insert(node);
            choose(egraph, roots, &banned).map(|(choice, cost)| (cost, choice, banned))
        };
        let cheaper = candidates.into_iter().filter_map(without).find(|(found, _, _)| *found < cost);
        let Some((found, choice, without)) = cheaper else { return Some((best, cost)) };
        (best, cost, banned) = (choice, found, without);
    }
}

/// The cost of one form without its operands.
pub(super) fn node_cost(egraph: &Graph, node: &Node) -> Cost {
    let elements =
        |id: Id| egraph[id].data.ty.as_ref().and_then(|ty| ty.shape.elements()).unwrap_or(0) as u64;
    let cols = |id: Id| egraph[id].data.ty.as_ref().map_or(1, channels);
    let constant = node.children.iter().all(|id| egraph[*id].data.constant) && !node.children.is_empty();
    let paid_once = |constants| Cost { run_time: 0, constants };
    let per_token = |run_time: u64| Cost { run_time: run_time.max(1), constants: 0 };
    match (node.kind, node.children.as_slice()) {
        (Kind::Vector(n), _) => {
            let vector = &egraph.analysis.vectors[n];
            paid_once(if vector.origin.is_some() { 0 } else { vector.numbers.len() as u64 })
        }
        (Kind::Scale, [x, _]) if constant => paid_once(1 + 2 * elements(*x)),
        (_, [x, ..]) if constant => paid_once(1 + elements(*x)),
        (Kind::Linear, [_, weight]) => per_token(elements(*weight)),
        (Kind::Attention, [_, q, ..]) => per_token(64 * cols(*q)),
        (Kind::Silu | Kind::Rope, [x, ..]) => per_token(4 * cols(*x)),
        (Kind::RmsNorm, [_, x, _]) => per_token(3 * cols(*x)),
        (Kind::KvAppend, [_, x]) | (_, [x, ..]) => per_token(cols(*x)),
        _ => Cost::default(),
    }
}

/// Channels of a value in one step for each token of the step. A whole cache is as many as a long context.
fn channels(ty: &Type) -> u64 {
    let whole_cache = matches!(ty.shape.rows(), Dim::Sym(rows) if rows.contains('+'));
    let channels = ty.shape.cols().fixed().unwrap_or(1) as u64;
    if whole_cache { channels.saturating_mul(4096) } else { channels }
}

/// A class's form with what it needs: its cost, and that of all below it.
struct Best {
    node: Node,
    needs: BTreeMap<Id, Cost>,
    total: Cost,
}

fn choose(egraph: &Graph, roots: &[Id], banned: &BTreeSet<Node>) -> Option<(Choice, Cost)> {
    let mut classes: Vec<_> = egraph.classes().collect();
    classes.sort_unstable_by_key(|class| class.id);
    let mut best: BTreeMap<Id, Best> = BTreeMap::new();
    let mut changed = true;
    while changed {
        changed = false;
        for class in &classes {
            let mut nodes: Vec<&Node> = class.nodes.iter().filter(|node| !banned.contains(*node)).collect();
            nodes.sort_unstable();
            for node in nodes {
                let Some(found) = with_operands(egraph, class.id, node, &best) else { continue };
                if best.get(&class.id).is_none_or(|known| found.total < known.total) {
                    best.insert(class.id, found);
                    changed = true;
                }
            }
        }
    }
    let mut choice = Choice::new();
    let mut stack: Vec<Id> = roots.iter().map(|id| egraph.find(*id)).collect();
    while let Some(id) = stack.pop() {
        let node = &best.get(&id)?.node;
        if choice.insert(id, node.clone()).is_none() {
            stack.extend(node.children().iter().map(|id| egraph.find(*id)));
        }
    }
    let cost = choice.values().map(|node| node_cost(egraph, node)).sum();
    Some((choice, cost))
}

/// `node` with the best forms of its operands; `None` where one has none yet, or needs this class itself.
fn with_operands(egraph: &Graph, class: Id, node: &Node, best: &BTreeMap<Id, Best>) -> Option<Best> {
    let mut needs = BTreeMap::from([(class, node_cost(egraph, node))]);
    for child in node.children() {
        let below = &best.get(&egraph.find(*child))?.needs;
        if below.contains_key(&class) {
            return None;
        }
        needs.extend(below);
    }
    let total = needs.values().copied().sum();
    Some(Best { node: node.clone(), needs, total })
}
