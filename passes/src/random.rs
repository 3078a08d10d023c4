//! Random inputs for graphs: the same for the same seed, names and types, on every machine.

use std::collections::BTreeMap;

use fireq_ir::interp::Tensor;
use fireq_ir::{DType, Dim, DimBindings, Graph, Op, Shape, Type};
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
    let shape = Shape(ty.shape.0.iter().map(|dim| Dim::Fixed(size(dim, bindings))).collect());
    let elements = shape.elements().unwrap_or(0);
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

/// The number that a dimension stands for; a symbol that is not bound counts as 3.
pub fn size(dim: &Dim, bindings: &DimBindings) -> usize {
    let one = |symbol: &str| Dim::sym(symbol).resolve(bindings).unwrap_or(3);
    dim.fixed().unwrap_or_else(|| dim.to_string().split('+').map(one).fold(0, usize::saturating_add))
}

fn heavy_tailed(random: &mut impl Rng) -> f32 {
    let sum: f32 = (0..4).map(|_| random.random_range(-1.0f32..1.0)).sum();
    if random.random_range(0..16) == 0 { sum * 8.0 } else { sum }
}

/// The tokens of a sequence: the rows of the inputs that have one for each token, or for each that is selected.
pub fn tokens(graph: &Graph, inputs: &Tensors) -> usize {
    let per_token = |ty: &Type| ty.shape.0.first().is_some_and(|dim| dim.fixed().is_none());
    let rows = graph.inputs().iter().filter(|v| per_token(graph.ty(**v))).filter_map(|v| {
        let tensor = inputs.get(&**graph.op(*v).name()?)?;
        tensor.ty.shape.0.first()?.fixed()
    });
    rows.max().unwrap_or(1)
}
