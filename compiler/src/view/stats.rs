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
        let mut summary = Summary::default();
        let known = data.for_each_piece(dtype, |piece| summary.add(piece));
        data.release();
        known.then(|| (name, summary.json()))
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
            let mut summary = Summary::default();
            summary.add(&tensor.to_f32());
            found.insert(value, summary.json());
        }
    };
    match interpret_observed(graph, &inputs, &caches, &mut observe) {
        Ok(_) => found,
        Err(_) => BTreeMap::new(),
    }
}

/// What is summed up of numbers.
struct Summary {
    count: usize,
    zeros: usize,
    sum: f64,
    squares: f64,
    least: f32,
    largest: f32,
}

impl Default for Summary {
    fn default() -> Self {
        Summary {
            count: 0,
            zeros: 0,
            sum: 0.0,
            squares: 0.0,
            least: f32::INFINITY,
            largest: f32::NEG_INFINITY,
        }
    }
}

impl Summary {
    fn add(&mut self, numbers: &[f32]) {
        self.count += numbers.len();
        for x in numbers {
            let wide = f64::from(*x);
            self.zeros += usize::from(*x == 0.0);
            self.sum += wide;
            self.squares += wide * wide;
            self.least = self.least.min(*x);
            self.largest = self.largest.max(*x);
        }
    }

    /// Least, largest, mean, standard deviation, largest magnitude, share of zeros.
    fn json(&self) -> Value {
        let count = self.count.max(1) as f64;
        let mean = self.sum / count;
        let deviation = (self.squares / count - mean * mean).max(0.0).sqrt();
        let magnitude = self.least.abs().max(self.largest.abs());
        let numbers = [
            self.least.into(),
            self.largest.into(),
            mean,
            deviation,
            magnitude.into(),
            self.zeros as f64 / count,
        ];
        json!(numbers.map(|x| format!("{x:.4e}").parse::<f64>().unwrap_or(x)))
    }
}
