//! What a graph consists of, in numbers.

use std::collections::BTreeMap;

use fireq_ir::plan::{Storage, parts};
use fireq_ir::{Graph, Op, Type};

/// What a graph consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Elements of all constants, each counted once.
    pub parameters: u64,
    /// Bytes of all constants in the types they have in the graph.
    pub constant_bytes: u64,
    /// Bytes that a position takes in all caches together.
    pub cache_bytes_per_token: u64,
    /// Number of caches.
    pub caches: usize,
    /// How often each operation occurs, by mnemonic.
    pub ops: BTreeMap<&'static str, usize>,
    /// Inputs with their types, in order.
    pub inputs: Vec<String>,
    /// Types of the outputs, in order.
    pub outputs: Vec<String>,
}

/// Counts a graph's parts.
pub fn summarize(graph: &Graph) -> Summary {
    let mut summary = Summary::default();
    let mut constants = BTreeMap::new();
    for value in graph.schedule() {
        let (op, ty) = (graph.op(value), graph.ty(value));
        *summary.ops.entry(op.mnemonic()).or_default() += 1;
        match op {
            Op::Const { name } => drop(constants.insert(name.clone(), ty.clone())),
            Op::Input { name } => summary.inputs.push(format!("{name} {ty}")),
            Op::Cache { .. } => {
                summary.caches += 1;
                summary.cache_bytes_per_token += row_bytes(ty);
            }
            _ => {}
        }
    }
    for ty in constants.values() {
        let elements = ty.shape.elements().unwrap_or(0) as u64;
        summary.parameters += elements;
        summary.constant_bytes += row_bytes(ty) * ty.shape.rows().fixed().unwrap_or(0) as u64;
    }
    summary.outputs = graph.outputs.iter().map(|v| graph.ty(*v).to_string()).collect();
    summary
}

/// Bytes that a row of a value takes in plain storage, scales included.
pub fn row_bytes(ty: &Type) -> u64 {
    parts(ty, Storage::Plain).unwrap_or_default().iter().map(|part| part.row_bytes() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fireq_ir::{ConstData, DType, Dim, Format, Shape};

    #[test]
    fn a_constant_used_twice_counts_once_and_scales_count() {
        let mut graph = Graph::new("g");
        let x = graph.input("x", Type::f32(Dim::sym("T"), 4));
        let weight = Type::plain(DType::BF16, Shape::matrix(4, 4));
        let w = graph.constant("w", weight, ConstData::Elided { hash: None });
        let y = graph.add(Op::Linear, &[x, w]).unwrap();
        let y = graph.add(Op::Linear, &[y, w]).unwrap();
        graph.outputs.push(y);
        let summary = summarize(&graph);
        assert_eq!((summary.parameters, summary.constant_bytes), (16, 32));
        assert_eq!(summary.ops["linear"], 2);
        assert_eq!(row_bytes(&Type::f32(1, 256).with_format(&Format::weight(128))), 128 + 2 + 4);
    }
}
