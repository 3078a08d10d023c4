//! What became of weights that are codes in the checkpoint, as `fireq compile` says it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fireq::import::Packed;
use fireq_ir::expression::leaf_name;
use fireq_ir::{Graph, Op, ValueId};
use serde_json::{Value, json};

/// The packed weights of a model by what passes did to them.
pub struct Codes<'a> {
    method: &'a str,
    /// Those that have their codes still.
    kept: BTreeSet<&'a str>,
    /// Those that are numbers.
    numbers: BTreeSet<&'a str>,
    /// Those that have other codes, by the reason.
    requantized: BTreeMap<&'static str, BTreeSet<&'a str>>,
}

impl<'a> Codes<'a> {
    /// The packed weights in the graph that passes left.
    pub fn of(packed: &'a Packed, graph: &Graph) -> Self {
        let (rescaled, plain) = (rescaled(graph), plain(graph));
        let (mut kept, mut numbers, mut requantized) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for (name, obstacle) in &packed.weights {
            let of: &mut BTreeSet<&str> = if rescaled.contains(name.as_str()) {
                &mut kept
            } else if plain.contains(name.as_str()) {
                &mut numbers
            } else {
                requantized.entry(obstacle.unwrap_or("the recipe")).or_default()
            };
            of.insert(name);
        }
        Codes { method: &packed.method, kept, numbers, requantized }
    }

    /// In a line.
    pub fn text(&self) -> String {
        let kept = (!self.kept.is_empty()).then(|| format!("kept in {}", weights(self.kept.len())));
        let others = self.requantized.iter();
        let others =
            others.map(|(reason, names)| format!("requantized in {} ({reason})", weights(names.len())));
        let numbers =
            (!self.numbers.is_empty()).then(|| format!("numbers in {}", weights(self.numbers.len())));
        let all: Vec<String> = kept.into_iter().chain(others).chain(numbers).collect();
        let all = if all.is_empty() { "in no weight".into() } else { all.join(", ") };
        format!("  codes     {}: {all}\n", self.method)
    }

    /// The same with names.
    pub fn json(&self) -> Value {
        json!({
            "method": self.method,
            "kept": self.kept,
            "requantized": self.requantized,
            "numbers": self.numbers,
        })
    }
}

fn weights(n: usize) -> String {
    if n == 1 { "1 weight".into() } else { format!("{n} weights") }
}

/// Names of weights whose codes have other scales.
fn rescaled(graph: &Graph) -> BTreeSet<Arc<str>> {
    let values = graph.schedule().into_iter();
    values.filter(|v| matches!(graph.op(*v), Op::Rescale { .. })).map(|v| leaf_name(graph, v)).collect()
}

/// Names of constants that linears read as numbers.
fn plain(graph: &Graph) -> BTreeSet<Arc<str>> {
    let linears = graph.schedule().into_iter().filter(|v| *graph.op(*v) == Op::Linear);
    let weights = linears.map(|linear| graph.operands(linear)[1]);
    let mut stack: Vec<ValueId> = weights.filter(|weight| graph.ty(*weight).scheme.is_plain()).collect();
    let mut names = BTreeSet::new();
    while let Some(value) = stack.pop() {
        if let Op::Const { name } = graph.op(value) {
            names.insert(name.clone());
        }
        stack.extend(graph.operands(value));
    }
    names
}
