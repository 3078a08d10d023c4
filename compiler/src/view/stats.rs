//! Statistics of values: of constants from their data, of all else from a run on random inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use fireq_ir::interp::{Tensor, interpret_observed};
use fireq_ir::{ConstData, DType, Graph, Op, ValueId};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::numerics::{bindings, random_inputs};

/// The most elements of all constants together of a model that is run.
const MOST_ELEMENTS: usize = 1 << 24;

/// Statistics by name of the constants of all `graphs` whose data is there.
pub(super) fn of_constants<'a>(graphs: impl Iterator<Item = &'a Graph>) -> BTreeMap<Arc<str>, Value> {
    let mut wanted: BTreeMap<Arc<str>, (&ConstData, DType)> = BTreeMap::new();
    for graph in graphs {
        for value in graph.schedule() {
            if let Op::Const { name } = graph.op(value)
                && let Some(data) = graph.constants.get(name)
            {
                wanted.entry(name.clone()).or_insert((data, graph.ty(value).dtype));
            }
        }
    }
    let one = |(name, (data, dtype)): (Arc<str>, (&ConstData, DType))| {
        let found = data.numbers(dtype).map(|numbers| (name, summary(&numbers)));
        data.release();
        found
    };
    wanted.into_par_iter().filter_map(one).collect::<Vec<_>>().into_iter().collect()
}

/// Statistics of the values that a run computes; none for a model that is too large to be run, or cannot be.
pub(super) fn of_values(graph: &Graph) -> BTreeMap<ValueId, Value> {
    let size = |value: &ValueId| match graph.op(*value) {
        Op::Const { .. } => graph.ty(*value).shape.elements(),
        _ => Some(0),
    };
    let total = graph.schedule().iter().try_fold(0usize, |sum, v| sum.checked_add(size(v)?));
    if total.is_none_or(|total| total > MOST_ELEMENTS) {
        return BTreeMap::new();
    }
    let (inputs, caches) = random_inputs(graph, &bindings(16, 4, 4), 7);
    let mut found = BTreeMap::new();
    let mut observe = |value: ValueId, tensor: &Tensor| {
        if tensor.ty.dtype != DType::I32 {
            found.insert(value, summary(&tensor.to_f32()));
        }
    };
    match interpret_observed(graph, &inputs, &caches, &mut observe) {
        Ok(_) => found,
        Err(_) => BTreeMap::new(),
    }
}

/// Least, largest, mean, standard deviation, largest magnitude, share of zeros.
fn summary(numbers: &[f32]) -> Value {
    let count = numbers.len().max(1) as f64;
    let mut sums = (0.0, 0.0, 0usize);
    let (mut least, mut largest) = (f32::INFINITY, f32::NEG_INFINITY);
    for x in numbers {
        let wide = f64::from(*x);
        sums = (sums.0 + wide, sums.1 + wide * wide, sums.2 + usize::from(*x == 0.0));
        (least, largest) = (least.min(*x), largest.max(*x));
    }
    let mean = sums.0 / count;
    let deviation = (sums.1 / count - mean * mean).max(0.0).sqrt();
    let digits = |x: f64| format!("{x:.4e}").parse::<f64>().unwrap_or(x);
    let magnitude = f64::from(least.abs().max(largest.abs()));
    json!([
        digits(least.into()),
        digits(largest.into()),
        digits(mean),
        digits(deviation),
        digits(magnitude),
        digits(sums.2 as f64 / count),
    ])
}
