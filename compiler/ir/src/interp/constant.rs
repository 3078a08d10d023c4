//! Values of expressions over constants: whole, or some rows at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{InterpError, Tensor, eval};
use crate::{Graph, Op, ValueId};

/// The value of an expression over constants only. What it shares is computed once, however deep it is, and held only as
/// long as it is needed.
pub fn eval_constant(graph: &Graph, value: ValueId) -> Result<Tensor, InterpError> {
    evaluate(graph, Part { value, rows: None })
}

/// Rows of a matrix that is [`row_wise`], with no more in memory than these are made of.
pub(crate) fn eval_rows(graph: &Graph, value: ValueId, rows: Range<usize>) -> Result<Tensor, InterpError> {
    evaluate(graph, Part { value, rows: Some((rows.start, rows.end)) })
}

/// Whether some rows of an expression over constants are made of the same rows of matrices that are there.
pub(crate) fn row_wise(graph: &Graph, value: ValueId) -> bool {
    let (mut stack, mut seen) = (vec![value], BTreeSet::new());
    while let Some(value) = stack.pop() {
        if !seen.insert(value) {
            continue;
        }
        match graph.op(value) {
            Op::Const { name } if graph.constants.get(name).is_some_and(|data| data.size().is_some()) => (),
            _ if graph.ty(value).shape.0.len() != 2 => return false,
            Op::Scale | Op::Bias => stack.push(graph.operands(value)[0]),
            Op::Quantize { .. }
            | Op::Dequantize
            | Op::Rescale { .. }
            | Op::ScaleRows
            | Op::Concat
            | Op::Slice { .. }
            | Op::Add
            | Op::Mul => stack.extend(graph.operands(value)),
            _ => return false,
        }
    }
    graph.ty(value).shape.0.len() == 2
}

/// A value, or some of it along its first dimension.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    value: ValueId,
    rows: Option<(usize, usize)>,
}

fn evaluate(graph: &Graph, part: Part) -> Result<Tensor, InterpError> {
    let order = operands_first(graph, part);
    let mut uses: BTreeMap<Part, usize> = BTreeMap::new();
    order.iter().flat_map(|part| operands(graph, *part)).for_each(|p| *uses.entry(p).or_default() += 1);
    let mut values: BTreeMap<Part, Tensor> = BTreeMap::new();
    for part in order {
        let operands = operands(graph, part);
        let given: Vec<&Tensor> = operands.iter().map(|part| &values[part]).collect();
        let tensor = match (graph.op(part.value), given.as_slice()) {
            (Op::Const { name }, _) => {
                let rows = part.rows.map(|(start, end)| start..end);
                Tensor::constant(name, graph.ty(part.value), graph.constants.get(name), rows)?
            }
            // All of these rows are in one of both.
            (Op::Concat, [one]) => (*one).clone(),
            (op, given) => eval(op, given)?,
        };
        values.insert(part, tensor);
        for operand in operands {
            let left = uses.entry(operand).or_insert(1);
            *left -= 1;
            if *left == 0 {
                values.remove(&operand);
            }
        }
    }
    values.remove(&part).ok_or(InterpError::Op { op: "const", reason: "has no value".into() })
}

/// What a part is computed from, each before what reads it, and the part itself.
fn operands_first(graph: &Graph, part: Part) -> Vec<Part> {
    let (mut order, mut seen, mut stack) = (vec![], BTreeSet::new(), vec![(part, false)]);
    while let Some((part, read)) = stack.pop() {
        if read {
            order.push(part);
        } else if seen.insert(part) {
            stack.push((part, true));
            stack.extend(operands(graph, part).into_iter().rev().map(|part| (part, false)));
        }
    }
    order
}

/// The parts of its operands that a part is made of.
fn operands(graph: &Graph, part: Part) -> Vec<Part> {
    let operands = graph.operands(part.value);
    let Some((start, end)) = part.rows else {
        return operands.into_iter().map(|value| Part { value, rows: None }).collect();
    };
    let of = |value: ValueId, start: usize, end: usize| Part { value, rows: Some((start, end)) };
    match (graph.op(part.value), operands.as_slice()) {
        (Op::Concat, [a, b]) => {
            let middle = graph.ty(*a).shape.rows().fixed().unwrap_or(0);
            let first = of(*a, start.min(middle), end.min(middle));
            let second = of(*b, start.max(middle) - middle, end.max(middle) - middle);
            let some = |part: &Part| part.rows.is_some_and(|(start, end)| start < end);
            [first, second].into_iter().filter(some).collect()
        }
        (Op::Scale | Op::Bias, [x, along]) => vec![of(*x, start, end), Part { value: *along, rows: None }],
        (_, all) => all.iter().map(|value| of(*value, start, end)).collect(),
    }
}
