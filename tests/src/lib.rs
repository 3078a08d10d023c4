//! What the file tests and the op suite share: random inputs for any graph, and errors between results.

use std::collections::BTreeMap;

use fireq_ir::interp::Tensor;
use fireq_ir::{DType, DimBindings, Graph, Op, Type};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// The sizes of one run: `T` tokens after `P`, with `L` rows selected.
pub fn bindings(tokens: usize, past: usize, selected: usize) -> DimBindings {
    [("T", tokens), ("P", past), ("L", selected)].into_iter().map(|(name, n)| (name.to_string(), n)).collect()
}

/// Random inputs and caches for a graph: the same for the same seed, names and types. Floats are roughly normal with
/// one in sixteen far out; indices are small enough for any table; positions follow the past.
pub fn random_inputs(graph: &Graph, bindings: &DimBindings, seed: u64) -> (Tensors, Tensors) {
    let (mut inputs, mut caches) = (Tensors::new(), Tensors::new());
    for value in graph.schedule() {
        let (tensors, name) = match graph.op(value) {
            Op::Input { name } => (&mut inputs, name),
            Op::Cache { name } => (&mut caches, name),
            _ => continue,
        };
        let mut random = ChaCha8Rng::seed_from_u64(
            name.bytes().fold(seed, |h, b| h.wrapping_mul(31).wrapping_add(b.into())),
        );
        tensors.insert(name.to_string(), random_tensor(name, graph.ty(value), bindings, &mut random));
    }
    (inputs, caches)
}

fn random_tensor(name: &str, ty: &Type, bindings: &DimBindings, random: &mut impl Rng) -> Tensor {
    let shape = ty.shape.resolve(bindings).expect("graphs under test use T, P and L only");
    let elements = shape.elements().expect("a resolved shape is fixed");
    let ty = Type { shape, ..ty.clone() };
    if ty.dtype == DType::I32 {
        let limit = if name == "select" { bindings["T"] } else { 16 } as i32;
        let index = |i: usize| {
            if name == "positions" { (bindings["P"] + i) as i32 } else { random.random_range(0..limit) }
        };
        return Tensor::from_i32(&(0..elements).map(index).collect::<Vec<_>>());
    }
    Tensor::filled(&ty, (0..elements).map(|_| heavy_tailed(random)).collect())
}

fn heavy_tailed(random: &mut impl Rng) -> f32 {
    let sum: f32 = (0..4).map(|_| random.random_range(-1.0f32..1.0)).sum();
    if random.random_range(0..16) == 0 { sum * 8.0 } else { sum }
}

/// Relative error `‖found − expected‖ / ‖expected‖`; infinite when lengths differ or something is not finite.
pub fn relative_error(expected: &[f32], found: &[f32]) -> f64 {
    if expected.len() != found.len() || found.iter().any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let square = |v: f64| v * v;
    let error: f64 = expected.iter().zip(found).map(|(e, f)| square(f64::from(*e) - f64::from(*f))).sum();
    let norm: f64 = expected.iter().map(|e| square(f64::from(*e))).sum();
    if error == 0.0 { 0.0 } else { (error / norm).sqrt() }
}
