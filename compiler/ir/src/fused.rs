//! Fused operations, each said once: as the operations that it stands for. Its type, what the interpreter computes and
//! what a backend without a kernel of its own launches all follow from here, so that they cannot disagree.

use std::collections::BTreeMap;

use crate::infer::{InferError, infer as infer_one};
use crate::{Dim, Fit, Format, Graph, Op, Patch, PatchError, Ref, Type, ValueId};

/// Where a part gets an operand from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The n-th operand of the fused operation.
    Operand(usize),
    /// The result of the n-th part.
    Step(usize),
}

/// One of the operations that a fused one stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What is computed.
    pub op: Op,
    /// Its operands.
    pub operands: Vec<Slot>,
}

use Slot::{Operand as In, Step};

/// The parts of a fused operation on operands of `types`, in order; the last one's result is the operation's. `None`
/// for operations that are not fused. The number of operands has been checked.
pub fn parts(op: &Op, types: &[&Type]) -> Option<Vec<Part>> {
    let mut list = Parts(vec![]);
    match op {
        Op::NormQuantize { eps, to } => {
            let normed = list.push(Op::RmsNorm { eps: *eps }, &[In(0), In(1)]);
            list.quantize(to.clone(), Fit::Absmax, normed);
        }
        Op::LinearBias => {
            let y = list.push(Op::Linear, &[In(0), In(1)]);
            list.push(Op::Bias, &[y, In(2)]);
        }
        Op::LinearAdd => {
            let y = list.push(Op::Linear, &[In(0), In(1)]);
            list.push(Op::Add, &[In(2), y]);
        }
        Op::LinearSwiglu { to } => {
            // An odd number of channels leaves halves that do not add up: the product's operands then differ in type.
            let rows = types[1].shape.rows().fixed().unwrap_or(0);
            let both = list.push(Op::Linear, &[In(0), In(1)]);
            let gate = list.push(Op::Slice { start: 0, size: rows / 2 }, &[both]);
            let up = list.push(Op::Slice { start: rows / 2, size: rows - rows / 2 }, &[both]);
            let gate = list.push(Op::Silu, &[gate]);
            let product = list.push(Op::Mul, &[gate, up]);
            list.quantize(to.clone(), Fit::Absmax, product);
        }
        Op::RopeQuantize { to } => {
            let turned = list.rope(In(0), In(1), types.len() > 2, In(2));
            list.quantize(to.clone(), Fit::Absmax, turned);
        }
        Op::RopeAppend { fit } => {
            let turned = list.rope(In(1), In(2), types.len() > 3, In(3));
            list.append(types[0], *fit, turned);
        }
        Op::QuantizeAppend { fit } => list.append(types[0], *fit, In(1)),
        _ => return None,
    }
    Some(list.0)
}

struct Parts(Vec<Part>);

impl Parts {
    fn push(&mut self, op: Op, operands: &[Slot]) -> Slot {
        self.0.push(Part { op, operands: operands.to_vec() });
        Step(self.0.len() - 1)
    }

    fn rope(&mut self, x: Slot, table: Slot, scaled: bool, scale: Slot) -> Slot {
        let turned = self.push(Op::Rope, &[x, table]);
        if scaled { self.push(Op::Scale, &[turned, scale]) } else { turned }
    }

    fn quantize(&mut self, to: Format, fit: Fit, x: Slot) -> Slot {
        self.push(Op::Quantize { to, fit }, &[x])
    }

    /// Rows into the cache that is the first operand, in its format.
    fn append(&mut self, cache: &Type, fit: Fit, rows: Slot) {
        let plain = cache.scheme.is_plain();
        let rows = if plain { rows } else { self.quantize(cache.format(), fit, rows) };
        self.push(Op::KvAppend, &[In(0), rows]);
    }
}

/// The type of the last of `parts`.
pub(crate) fn infer(parts: &[Part], operands: &[&Type]) -> Result<Type, InferError> {
    let mut steps: Vec<Type> = vec![];
    for part in parts {
        let types: Vec<&Type> = part
            .operands
            .iter()
            .map(|slot| match slot {
                In(n) => operands[*n],
                Step(n) => &steps[*n],
            })
            .collect();
        let ty = infer_one(&part.op, &types)?;
        steps.push(ty);
    }
    Ok(steps.pop().expect("a fused operation has parts"))
}

/// The graph as a backend runs it that has no kernels for fused operations and merged linears: every fused operation
/// replaced by its parts, and slices of a linear whose weight is put together from constants by the linears of those.
/// Other values stay the values they are.
pub fn expand(graph: &Graph) -> Result<Graph, PatchError> {
    let mut expanded = graph.clone();
    for rewrite in [expand_value, split_slice] {
        let schedule = expanded.schedule();
        let patches = schedule.into_iter().filter_map(|value| rewrite(&expanded, value));
        let patches = patches.collect::<Result<Vec<_>, _>>()?;
        let applied = expanded.apply_all(&patches, &mut BTreeMap::new()).map_err(|(_, error)| error)?;
        if applied.contains(&false) {
            return Err(PatchError::Stale);
        }
    }
    Ok(expanded)
}

/// `slice(linear(x, concat(a, b)))` of just the channels of `b` is `linear(x, b)`; with a bias between, likewise.
fn split_slice(graph: &Graph, value: ValueId) -> Option<Result<Patch, PatchError>> {
    let Op::Slice { start, size } = *graph.op(value) else { return None };
    let whole = graph.operands(value)[0];
    let operands = graph.operands(whole);
    let (linear, bias) = match graph.op(whole) {
        Op::Bias => (operands[0], Some(piece(graph, operands[1], start, size)?)),
        _ => (whole, None),
    };
    let [x, weight] = graph.operands(linear)[..] else { return None };
    if *graph.op(linear) != Op::Linear {
        return None;
    }
    let weight = piece(graph, weight, start, size)?;
    let split = || {
        let mut patch = Patch::new("slice");
        let mut own = patch.add(graph, Op::Linear, &[x.into(), weight.into()])?;
        if let Some(bias) = bias {
            own = patch.add(graph, Op::Bias, &[own, bias.into()])?;
        }
        patch.replace(value, own);
        Ok(patch)
    };
    Some(split())
}

/// The part of nested `concat`s that has just the rows from `start` on.
fn piece(graph: &Graph, mut value: ValueId, mut start: usize, size: usize) -> Option<ValueId> {
    let rows = |value| graph.ty(value).shape.0.first().and_then(Dim::fixed);
    while start != 0 || rows(value)? != size {
        let (Op::Concat, [a, b]) = (graph.op(value), &graph.operands(value)[..]) else { return None };
        let first = rows(*a)?;
        (value, start) = if start < first { (*a, start) } else { (*b, start - first) };
    }
    Some(value)
}

fn expand_value(graph: &Graph, value: ValueId) -> Option<Result<Patch, PatchError>> {
    let operands = graph.operands(value);
    let types: Vec<&Type> = operands.iter().map(|v| graph.ty(*v)).collect();
    Some(expand_into(graph, value, &operands, &parts(graph.op(value), &types)?))
}

fn expand_into(
    graph: &Graph,
    value: ValueId,
    operands: &[ValueId],
    parts: &[Part],
) -> Result<Patch, PatchError> {
    let mut patch = Patch::new(graph.op(value).mnemonic());
    let mut steps: Vec<Ref> = vec![];
    for part in parts {
        let slot = |slot: &Slot| match slot {
            In(n) => operands[*n].into(),
            Step(n) => steps[*n],
        };
        let operands: Vec<Ref> = part.operands.iter().map(slot).collect();
        let step = patch.add(graph, part.op.clone(), &operands)?;
        steps.push(step);
    }
    patch.replace(value, *steps.last().expect("a fused operation has parts"));
    Ok(patch)
}
