//! Stand-ins for weights that are not here: random numbers in their types, which take as long to quantize as any.

use fireq_ir::{ConstData, Dim, Graph, Op, Type, ValueId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A constant expression as a graph of its own, with random numbers for constants and `rows` rows of each at most. None where that leaves
/// fewer rows than wanted.
pub(super) fn of_rows(graph: &Graph, value: ValueId, rows: usize) -> Option<(Graph, ValueId)> {
    let mut sample = Graph::new("sample");
    let value = copy(graph, value, rows, &mut sample)?;
    (sample.ty(value).shape.rows().fixed()? >= rows).then_some((sample, value))
}

fn copy(graph: &Graph, value: ValueId, rows: usize, sample: &mut Graph) -> Option<ValueId> {
    let Op::Const { name } = graph.op(value) else {
        let operands = graph.operands(value).into_iter();
        let operands =
            operands.map(|operand| copy(graph, operand, rows, sample)).collect::<Option<Vec<_>>>()?;
        return sample.add(graph.op(value).clone(), &operands).ok();
    };
    let ty = graph.ty(value);
    let mut shape = ty.shape.clone();
    if let [Dim::Fixed(all), _] = &mut shape.0[..] {
        *all = rows.min(*all);
    }
    if !ty.scheme.is_plain() {
        return None;
    }
    let numbers = random(shape.elements()?, 7);
    Some(sample.constant(name, Type::plain(ty.dtype, shape), ConstData::from_numbers(ty.dtype, &numbers)?))
}

/// Numbers of about the size of weights, which every dtype has exactly.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-127..=127) as f32 / 2048.0).collect()
}

/// Random constants wherever a graph has none.
pub(super) fn fill(graph: &mut Graph) -> Option<()> {
    for value in graph.schedule() {
        let Op::Const { name } = graph.op(value).clone() else { continue };
        let ty = graph.ty(value).clone();
        if graph.constants.get(&name).is_some_and(|data| data.bytes().is_some()) {
            continue;
        }
        let mut numbers = random(ty.shape.elements()?, name.len() as u64);
        if ty.shape.0.len() == 1 {
            // Norms are near 1.
            for x in &mut numbers {
                *x = 1.0 + 16.0 * *x;
            }
        }
        graph.constants.insert(name, ConstData::from_numbers(ty.dtype, &numbers)?);
    }
    Some(())
}
