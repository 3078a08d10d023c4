//! Graphviz text.

use std::collections::BTreeMap;

use fireq_ir::expression::constant_values;
use fireq_ir::{Graph, Op, ValueId};

use super::layers::{Place, places};

/// A graph as Graphviz text: a cluster for each block, constants small and dashed. Equal graphs give equal bytes.
pub fn dot(graph: &Graph) -> String {
    let (places, constants) = (places(graph), constant_values(graph));
    let schedule = graph.schedule();
    let numbers: BTreeMap<ValueId, usize> = schedule.iter().copied().zip(0..).collect();
    let mut clusters: BTreeMap<Place, String> = BTreeMap::new();
    let mut edges = String::new();
    for value in &schedule {
        let style = if constants.contains(value) {
            "shape=note, style=dashed, fontsize=9"
        } else {
            "shape=box, style=rounded"
        };
        let label = escape(&label(graph, *value, numbers[value]));
        *clusters.entry(places[value]).or_default() +=
            &format!("    v{} [label=\"{label}\", {style}];\n", numbers[value]);
        for operand in graph.operands(*value) {
            edges += &format!("  v{} -> v{};\n", numbers[&operand], numbers[value]);
        }
    }
    for (n, output) in graph.outputs.iter().enumerate() {
        edges += &format!(
            "  out{n} [label=\"output {n}\", shape=plaintext];\n  v{} -> out{n};\n",
            numbers[output]
        );
    }
    let cluster = |(n, (place, nodes)): (usize, (&Place, &String))| {
        format!("  subgraph cluster_{n} {{\n    label=\"{}\";\n{nodes}  }}\n", title(*place))
    };
    let clusters: String = clusters.iter().enumerate().map(cluster).collect();
    format!(
        "digraph \"{}\" {{\n  rankdir=TB;\n  node [fontname=\"sans-serif\"];\n{clusters}{edges}}}\n",
        escape(&graph.name)
    )
}

fn title(place: Place) -> String {
    match place {
        Place::Start => "start".into(),
        Place::Layer(n) => format!("layer {n}"),
        Place::End => "end".into(),
    }
}

fn label(graph: &Graph, value: ValueId, number: usize) -> String {
    let op = graph.op(value);
    let name = match op {
        Op::Const { name } | Op::Input { name } | Op::Cache { name } => format!(" {name}"),
        _ => String::new(),
    };
    format!("%{number} {}{name}\n{}", op.mnemonic(), graph.ty(value))
}

/// A text inside of quotes: names come from files.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
