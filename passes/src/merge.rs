//! Linears of one input as one linear: what the merging passes share.

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{Graph, Op, PassError, Patch, Ref, ValueId};

use crate::pattern::used_once;

/// The patch that makes `linears` slices of one; `None` unless they read the same value, their weights are constants of
/// one format, and none of them is also something else's operand.
pub(crate) fn merge(graph: &Graph, linears: &[ValueId]) -> Option<Result<Patch, PassError>> {
    let operands: Vec<Vec<ValueId>> = linears.iter().map(|v| graph.operands(*v)).collect();
    let (x, weight) = (operands[0][0], operands[0][1]);
    let distinct = linears.iter().enumerate().all(|(n, v)| !linears[..n].contains(v));
    let alike = operands.iter().all(|o| {
        o[0] == x && graph.ty(o[1]).format() == graph.ty(weight).format() && is_constant(graph, o[1])
    });
    let free = linears.iter().all(|v| used_once(graph, *v));
    let weights: Vec<ValueId> = operands.iter().map(|o| o[1]).collect();
    (distinct && alike && free).then(|| build(graph, linears, x, &weights))
}

fn build(graph: &Graph, linears: &[ValueId], x: ValueId, weights: &[ValueId]) -> Result<Patch, PassError> {
    let mut patch = Patch::new(&*leaf_name(graph, weights[0]));
    let weight = concat(graph, &mut patch, weights)?;
    let mut merged = patch.add(graph, Op::Linear, &[x.into(), weight])?;
    let mut ends = linears.to_vec();
    if let Some((biased, biases)) = biases(graph, linears) {
        let bias = concat(graph, &mut patch, &biases)?;
        merged = patch.add(graph, Op::Bias, &[merged, bias])?;
        ends = biased;
    }
    let mut start = 0;
    for end in ends {
        let size = graph.ty(end).shape.cols().fixed().unwrap_or(0);
        let slice = patch.add(graph, Op::Slice { start, size }, &[merged])?;
        patch.replace(end, slice);
        start += size;
    }
    Ok(patch)
}

fn concat(graph: &Graph, patch: &mut Patch, parts: &[ValueId]) -> Result<Ref, PassError> {
    let first: Ref = parts[0].into();
    parts[1..].iter().try_fold(first, |all, part| Ok(patch.add(graph, Op::Concat, &[all, (*part).into()])?))
}

/// The only users of the linears with the vectors they add, when each is a bias with a constant of one dtype.
fn biases(graph: &Graph, linears: &[ValueId]) -> Option<(Vec<ValueId>, Vec<ValueId>)> {
    let users: Vec<ValueId> = linears.iter().map(|v| graph.users(*v)[0]).collect();
    let vectors: Vec<ValueId> =
        users.iter().filter(|u| *graph.op(**u) == Op::Bias).map(|u| graph.operands(*u)[1]).collect();
    let alike = vectors.len() == linears.len()
        && vectors
            .iter()
            .all(|v| graph.ty(*v).format() == graph.ty(vectors[0]).format() && is_constant(graph, *v));
    alike.then_some((users, vectors))
}
