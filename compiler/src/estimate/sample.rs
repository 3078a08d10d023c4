//! Stand-ins for weights that are not here: random numbers in their types, which take as long to quantize as any.

use fireq_ir::{ConstData, Dim, Graph, Op, Type, ValueId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The first rows of a constant expression as a graph of its own, with random numbers for constants that have no data. None where the
/// expression mixes rows.
pub(super) fn of_rows(graph: &Graph, value: ValueId, rows: usize) -> Option<(Graph, ValueId)> {
    let mut sample = Graph::new("sample");
    let all = graph.ty(value).shape.rows().fixed()?;
    let value = copy(graph, value, (all, rows), &mut sample)?;
    (sample.ty(value).shape.rows() == Dim::Fixed(rows)).then_some((sample, value))
}

fn copy(graph: &Graph, value: ValueId, (all, rows): (usize, usize), sample: &mut Graph) -> Option<ValueId> {
    let Op::Const { name } = graph.op(value) else {
        let operands = graph.operands(value).into_iter();
        let operands =
            operands.map(|operand| copy(graph, operand, (all, rows), sample)).collect::<Option<Vec<_>>>()?;
        return sample.add(graph.op(value).clone(), &operands).ok();
    };
    let ty = graph.ty(value);
    let mut shape = ty.shape.clone();
    if let [first @ Dim::Fixed(_), _] = &mut shape.0[..]
        && *first == Dim::Fixed(all)
    {
        *first = Dim::Fixed(rows);
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
