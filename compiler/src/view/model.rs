//! The states of a graph as JSON for the page.
//!
//! `versions[i]` is `[value, op, attributes, type, operands, constant]`: what a value is from one state to another. A
//! state's `order` lists its versions as they are scheduled, so a version's place there is its number `%n`; `places`
//! says for each the block, −1 before the first and the number of blocks after the last.

use std::collections::BTreeMap;

use fireq_ir::expression::constant_values;
use fireq_ir::{Attr, Graph, OPS, Op, ValueId};
use serde_json::{Map, Value, json};

use super::State;
use super::layers::{Place, places};
use super::stats::{of_constants, of_values};

/// Texts that occur again and again, each stored once.
#[derive(Default)]
struct Texts {
    known: BTreeMap<String, usize>,
    list: Vec<String>,
}

impl Texts {
    fn place(&mut self, text: String) -> usize {
        *self.known.entry(text).or_insert_with_key(|text| {
            self.list.push(text.clone());
            self.list.len() - 1
        })
    }
}

#[derive(Default)]
struct Encoder {
    texts: Texts,
    values: BTreeMap<ValueId, usize>,
    known: BTreeMap<String, usize>,
    versions: Vec<Value>,
}

pub(super) fn encode(states: &[State], statistics: bool) -> Value {
    let mut encoder = Encoder::default();
    let encoded: Vec<Value> = states.iter().map(|state| encoder.state(state, statistics)).collect();
    let constants = if statistics { of_constants(states.iter().map(|s| &s.graph)) } else { BTreeMap::new() };
    let constants: Map<String, Value> =
        constants.into_iter().map(|(name, stats)| (name.to_string(), stats)).collect();
    let docs: Map<String, Value> = OPS
        .iter()
        .map(|op| (op.mnemonic.into(), json!({ "doc": op.doc.trim(), "operands": op.operands })))
        .collect();
    json!({
        "name": states.first().map(|s| &s.graph.name),
        "texts": encoder.texts.list,
        "versions": encoder.versions,
        "states": encoded,
        "constants": constants,
        "ops": docs,
    })
}

impl Encoder {
    fn state(&mut self, state: &State, statistics: bool) -> Value {
        let graph = &state.graph;
        let (places, constants) = (places(graph), constant_values(graph));
        let layers =
            places.values().filter_map(|p| if let Place::Layer(n) = p { Some(n + 1) } else { None }).max();
        let layers = layers.unwrap_or(0) as i64;
        let block = |value: &ValueId| match places[value] {
            Place::Start => -1,
            Place::Layer(n) => n as i64,
            Place::End => layers,
        };
        let schedule = graph.schedule();
        let order: Vec<usize> =
            schedule.iter().map(|v| self.version(graph, *v, constants.contains(v))).collect();
        let stats = if statistics { of_values(graph) } else { BTreeMap::new() };
        let stats: Map<String, Value> =
            stats.into_iter().map(|(value, stats)| (self.value(value).to_string(), stats)).collect();
        let patches: Vec<Value> =
            state.patches.iter().map(|p| json!({ "site": p.site, "notes": p.notes })).collect();
        json!({
            "title": state.title,
            "order": order,
            "places": schedule.iter().map(block).collect::<Vec<_>>(),
            "layers": layers,
            "outputs": graph.outputs.iter().map(|v| self.value(*v)).collect::<Vec<_>>(),
            "stats": stats,
            "patches": patches,
        })
    }

    fn value(&mut self, value: ValueId) -> usize {
        let next = self.values.len();
        *self.values.entry(value).or_insert(next)
    }

    fn version(&mut self, graph: &Graph, value: ValueId, constant: bool) -> usize {
        let op = graph.op(value);
        let id = self.value(value);
        let operands: Vec<usize> = graph.operands(value).into_iter().map(|v| self.value(v)).collect();
        let texts = [op.mnemonic().to_string(), attributes(op), graph.ty(value).to_string()];
        let [mnemonic, attributes, ty] = texts.map(|text| self.texts.place(text));
        let version = json!([id, mnemonic, attributes, ty, operands, i32::from(constant)]);
        let next = self.versions.len();
        let place = *self.known.entry(version.to_string()).or_insert(next);
        if place == next {
            self.versions.push(version);
        }
        place
    }
}

/// The name alone of what has one; else `name=value, …`.
fn attributes(op: &Op) -> String {
    if let Some(name) = op.name() {
        return name.to_string();
    }
    let item = |(name, attr): (&str, Attr)| format!("{name}={attr}");
    op.attrs().into_iter().map(item).collect::<Vec<_>>().join(", ")
}
