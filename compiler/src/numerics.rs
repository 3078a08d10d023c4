//! Do two graphs compute the same? Both are run on the same random data and their outputs compared.

use std::collections::BTreeMap;

use fireq_ir::interp::{Data, InterpError, Outcome, Tensor, interpret};
use fireq_ir::{DType, Dim, DimBindings, Graph, Op, Type, ValueId};

/// The relative L2 error of the outputs of `after` against those of `before`: the largest of all outputs. Constants
/// are the graphs' own, or random by name where they were elided; inputs and caches are random, caches in the format
/// that each graph declares.
pub fn difference(before: &Graph, after: &Graph) -> Result<f64, InterpError> {
    let (expected, found) = (run(before)?, run(after)?);
    let pairs = expected.outputs.iter().zip(&found.outputs);
    Ok(pairs.map(|(a, b)| relative_error(&a.to_f32(), &b.to_f32())).fold(0.0, f64::max))
}

/// `|found − expected| / |expected|`; infinite when the lengths differ or a number is not finite.
pub fn relative_error(expected: &[f32], found: &[f32]) -> f64 {
    if expected.len() != found.len() {
        return f64::INFINITY;
    }
    let square = |v: f64| v * v;
    let norm: f64 = expected.iter().map(|a| square(f64::from(*a))).sum();
    let off: f64 = expected.iter().zip(found).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    match (off / norm).sqrt() {
        _ if off == 0.0 => 0.0,
        error if error.is_finite() => error,
        _ => f64::INFINITY,
    }
}

/// The size that a symbol takes: large enough that rows differ, small enough to be quick. Rows that `select` picks
/// are fewer than the tokens they are picked from.
fn size(symbol: &str) -> usize {
    match symbol {
        "T" => 5,
        "L" => 2,
        _ => 3,
    }
}

fn run(graph: &Graph) -> Result<Outcome, InterpError> {
    let (mut inputs, mut caches) = (BTreeMap::new(), BTreeMap::new());
    for value in graph.schedule() {
        match graph.op(value) {
            Op::Input { name } => drop(inputs.insert(name.to_string(), random(graph, value, name))),
            Op::Cache { name } => drop(caches.insert(name.to_string(), random(graph, value, name))),
            _ => {}
        }
    }
    interpret(graph, &inputs, &caches)
}

/// A tensor of the value's type that depends on its name only. Token ids are 0 and 1, which every table has; other
/// indices count from 0.
fn random(graph: &Graph, value: ValueId, name: &str) -> Tensor {
    let declared = graph.ty(value);
    let symbols = declared.shape.0.iter().map(Dim::to_string);
    let bindings: DimBindings =
        symbols.flat_map(|s| s.split('+').map(|s| (s.to_string(), size(s))).collect::<Vec<_>>()).collect();
    let shape = declared.shape.resolve(&bindings).unwrap_or_else(|| declared.shape.clone());
    let elements = shape.elements().unwrap_or(0);
    let ty = Type { shape, ..declared.clone() };
    if ty.dtype == DType::I32 {
        let ids: Vec<i32> = (0..elements as i32).map(|i| if name == "tokens" { i % 2 } else { i }).collect();
        return Tensor { data: Data::Int(ids), ty };
    }
    Tensor::filled(&ty, noise(name, elements))
}

/// Numbers from −1 to 1 that depend on `name` only.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let mut state =
        name.bytes().fold(1469598103934665603u64, |h, b| (h ^ u64::from(b)).wrapping_mul(1099511628211));
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}
