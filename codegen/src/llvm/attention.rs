//! Causal attention, one token and head per unit: scores into scratch, softmax over them, weighted sum of values.

use inkwell::values::{IntValue, PointerValue, VectorValue};

use fireq_ir::plan::BLOCK;
use fireq_ir::{DType, e4m3};

use super::emit::{Emit, LANES};
use super::operand::Operand;

/// Attributes and sizes of one attention kernel.
pub(super) struct Shape<'c> {
    pub heads: usize,
    pub kv_heads: usize,
    pub scale: f32,
    pub p: DType,
    /// Rows in the cache before this step.
    pub past: IntValue<'c>,
}

/// `out[t,h] = softmax(q·kᵀ·scale)·v` for the units `begin..end`, a unit being `t·heads + h`.
pub(super) fn attention<'c>(e: &Emit<'c, '_>, shape: &Shape<'c>, [q, k, v, out]: [&Operand<'c>; 4]) {
    let width = q.cols() / shape.heads;
    let sums = e.slots(width.div_ceil(LANES as usize));
    let (max, total) = (e.slot(e.vec_type()), e.slot(e.vec_type()));
    let scores = e.pointer_param(4);
    e.for_range(e.int_param(2), e.int_param(3), 1, |unit| {
        let (token, head) = (e.div(unit, shape.heads), e.rem(unit, shape.heads));
        let kv_head = e.div(head, shape.heads / shape.kv_heads);
        let keys = e.add(e.add(shape.past, token), e.index(1));
        let query = load_query(e, q, token, head, width);
        let factor = query_factor(e, shape, q, token, head);
        e.set(max, e.constant(f32::NEG_INFINITY));
        e.for_range(e.index(0), keys, 1, |key| {
            let score = e.splat(dot(e, &query, k, key, kv_head, width));
            let score = e.fmul(score, factor);
            e.store(e.at(scores, e.mul(key, 4)), e.first(score), 4);
            e.set(max, e.fmax(e.get(max), score));
        });
        softmax(e, shape.p, scores, keys, e.get(max), total);
        weighted_sum(e, v, kv_head, width, scores, keys, &sums);
        let total = e.splat(e.reduce_add(e.get(total)));
        let row = out.row(e, 0, token);
        for_lanes(width, |n, have| {
            let offset = e.add(e.mul(head, width), e.index(n * LANES as usize));
            e.store_floats(row, offset, e.fdiv(e.get(sums[n]), total), have);
        });
    });
}

/// Walks a head's channels in vectors: `body(number, channels in it)`.
fn for_lanes(width: usize, mut body: impl FnMut(usize, u32)) {
    let lanes = LANES as usize;
    (0..width.div_ceil(lanes)).for_each(|n| body(n, (width - n * lanes).min(lanes) as u32));
}

/// First element of a head in a row: code blocks pad every head to whole blocks.
fn head_offset<'c>(e: &Emit<'c, '_>, x: &Operand<'c>, head: IntValue<'c>, width: usize) -> IntValue<'c> {
    e.mul(head, if x.ty.scheme.is_plain() { width } else { width.next_multiple_of(BLOCK) })
}

fn load_query<'c>(
    e: &Emit<'c, '_>,
    q: &Operand<'c>,
    token: IntValue<'c>,
    head: IntValue<'c>,
    width: usize,
) -> Vec<VectorValue<'c>> {
    let (row, first) = (q.row(e, 0, token), head_offset(e, q, head, width));
    let mut query = vec![];
    for_lanes(width, |n, have| {
        let offset = e.add(first, e.index(n * LANES as usize));
        query.push(e.load_floats(row, offset, q.stored(0), have));
    });
    query
}

/// What turns a dot product into a base-2 exponent: `scale · log2 e`, and the query's own scale.
fn query_factor<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape<'c>,
    q: &Operand<'c>,
    token: IntValue<'c>,
    head: IntValue<'c>,
) -> VectorValue<'c> {
    let factor = e.constant(shape.scale * std::f32::consts::LOG2_E);
    if q.ty.scheme.is_plain() { factor } else { e.fmul(e.splat(q.load_scale(e, 1, token, head)), factor) }
}

fn dot<'c>(
    e: &Emit<'c, '_>,
    query: &[VectorValue<'c>],
    k: &Operand<'c>,
    key: IntValue<'c>,
    kv_head: IntValue<'c>,
    width: usize,
) -> inkwell::values::FloatValue<'c> {
    let mut sums = [None, None];
    for (n, (x, y)) in load_head(e, k, key, kv_head, width).into_iter().zip(query).enumerate() {
        let sum = &mut sums[n % 2];
        *sum = Some(sum.map_or_else(|| e.fmul(x, *y), |sum| e.fma(x, *y, sum)));
    }
    let [first, second] = sums;
    let first = first.expect("a head has channels");
    e.reduce_add(second.map_or(first, |second| e.fadd(first, second)))
}

/// One head of a row of the cache, as vectors.
fn load_head<'c>(
    e: &Emit<'c, '_>,
    cache: &Operand<'c>,
    row: IntValue<'c>,
    head: IntValue<'c>,
    width: usize,
) -> Vec<VectorValue<'c>> {
    let Some(level) = cache.ty.scheme.0.first() else { return load_query(e, cache, row, head, width) };
    if cache.ty.dtype == DType::E4M3 {
        let scale = e.splat(cache.load_scale(e, 1, row, head));
        return load_query(e, cache, row, head, width).into_iter().map(|x| e.fmul(x, scale)).collect();
    }
    let table = e.table(cache.row(e, 1, row), head, level.dtype);
    let first = e.at(cache.row(e, 0, row), e.div(head_offset(e, cache, head, width), 2));
    let block = |n: usize| e.decode_block(e.at(first, e.index(n * BLOCK / 2)), &table);
    let mut vectors: Vec<_> = (0..width.div_ceil(BLOCK)).flat_map(block).collect();
    vectors.truncate(width.div_ceil(LANES as usize));
    vectors
}

/// Scores to probabilities in place, not normalized; their sum goes to `total`. The vector after the last score is
/// padded with −∞, whose probability rounds to nothing.
fn softmax<'c>(
    e: &Emit<'c, '_>,
    p: DType,
    scores: PointerValue<'c>,
    keys: IntValue<'c>,
    max: VectorValue<'c>,
    total: PointerValue<'c>,
) {
    e.store_floats(scores, keys, e.constant(f32::NEG_INFINITY), LANES);
    e.set(total, e.constant(0.0));
    e.for_range(e.index(0), keys, LANES as usize, |key| {
        let score = e.load_floats(scores, key, DType::F32, LANES);
        let exp = e.exp2(e.fsub(score, max));
        let exp = if p == DType::E4M3 { e.round_e4m3(e.fmul(exp, e.constant(e4m3::MAX))) } else { exp };
        e.store_floats(scores, key, exp, LANES);
        e.set(total, e.fadd(e.get(total), exp));
    });
}

fn weighted_sum<'c>(
    e: &Emit<'c, '_>,
    v: &Operand<'c>,
    kv_head: IntValue<'c>,
    width: usize,
    p: PointerValue<'c>,
    keys: IntValue<'c>,
    sums: &[PointerValue<'c>],
) {
    e.clear(sums);
    e.for_range(e.index(0), keys, 1, |key| {
        let weight = e.splat(e.first(e.load_floats(p, key, DType::F32, 1)).into_float_value());
        for (slot, value) in sums.iter().zip(load_head(e, v, key, kv_head, width)) {
            e.accumulate(*slot, weight, value);
        }
    });
}
