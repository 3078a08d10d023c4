//! Do two graphs compute the same? Both are run on the same random data and their outputs compared.

use fireq_ir::interp::{InterpError, Tensor, interpret};
use fireq_ir::{DimBindings, Graph, Op, Type};
use fireq_passes::random::size;
pub use fireq_passes::random::{Tensors, bindings, random_inputs};

/// How far an output is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputError {
    /// The largest absolute difference of an element.
    pub max: f64,
    /// The relative L2 error of the whole output, see [`relative_error`].
    pub l2: f64,
}

/// The relative L2 error of the outputs of `after` against those of `before`: the largest of all outputs.
pub fn difference(before: &Graph, after: &Graph) -> Result<f64, InterpError> {
    Ok(compare(before, after)?.iter().map(|error| error.l2).fold(0.0, f64::max))
}

/// How far each output of `after` is off from that of `before`. Constants are the graphs' own, or random by name where
/// they were elided; inputs are random. A graph with caches runs two steps, the first of them on empty caches: what a
/// cache holds is the graph's own affair, as long as it reads what it wrote.
pub fn compare(before: &Graph, after: &Graph) -> Result<Vec<OutputError>, InterpError> {
    let (expected, found) = (run_steps(before)?, run_steps(after)?);
    let output = |n: usize| {
        let values =
            |steps: &[Vec<Vec<f32>>]| steps.iter().flat_map(|step| &step[n]).copied().collect::<Vec<_>>();
        let (expected, found) = (values(&expected), values(&found));
        let off = expected.iter().zip(&found).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        OutputError { max: off.fold(0.0, f64::max), l2: relative_error(&expected, &found) }
    };
    Ok((0..before.outputs.len().min(after.outputs.len())).map(output).collect())
}

/// The outputs of each step.
fn run_steps(graph: &Graph) -> Result<Vec<Vec<Vec<f32>>>, InterpError> {
    let cache_types: Vec<(&str, &Type)> = cache_types(graph);
    // A cache of a fixed number of rows is not one that grows from step to step.
    let grows = |(_, ty): &(&str, &Type)| ty.shape.rows().fixed().is_none();
    let stateful = !cache_types.is_empty() && cache_types.iter().all(grows);
    let steps = if stateful { vec![(4, 0), (5, 4)] } else { vec![(5, 3)] };
    let empty = |(name, ty): &(&str, &Type)| ((*name).to_string(), Tensor::empty_cache(ty));
    let mut state: Tensors = cache_types.iter().map(empty).collect();
    let mut outputs = vec![];
    for (tokens, past) in steps {
        let sizes = bindings(tokens, past, 2);
        check_size(graph, &sizes)?;
        let (inputs, caches) = random_inputs(graph, &sizes, 7);
        let outcome = interpret(graph, &inputs, if stateful { &state } else { &caches })?;
        state = outcome.caches;
        outputs.push(outcome.outputs.iter().map(Tensor::to_f32).collect());
    }
    Ok(outputs)
}

fn cache_types(graph: &Graph) -> Vec<(&str, &Type)> {
    let cache = |value| match graph.op(value) {
        Op::Cache { name } => Some((&**name, graph.ty(value))),
        _ => None,
    };
    graph.schedule().into_iter().filter_map(cache).collect()
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

/// The most elements of a value that is run for comparison: text can claim any shape without having the data.
const MOST_ELEMENTS: usize = 1 << 28;

fn check_size(graph: &Graph, bindings: &DimBindings) -> Result<(), InterpError> {
    let elements =
        |ty: &Type| ty.shape.0.iter().try_fold(1usize, |n, dim| n.checked_mul(size(dim, bindings)));
    for value in graph.schedule() {
        let (op, ty) = (graph.op(value).mnemonic(), graph.ty(value));
        if elements(ty).is_none_or(|n| n > MOST_ELEMENTS) {
            return Err(InterpError::Op {
                op,
                reason: format!("{ty} is too large to be run on random data"),
            });
        }
    }
    Ok(())
}
