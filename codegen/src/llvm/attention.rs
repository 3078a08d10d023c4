//! Causal attention, one token and some heads with the same keys per unit: scores into scratch, softmax over them, weighted sum
//! of values. Keys and values are decoded once for all heads of a unit.

use inkwell::values::{FloatValue, IntValue, PointerValue, VectorValue};

use fireq_ir::plan::{BLOCK, heads_together};
use fireq_ir::{DType, e4m3};

use super::emit::{Emit, LANES, ok};
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

/// Keys whose values add up in f32 before sums go on in f64: products have eight significant bits.
const CHUNK: usize = 32;

/// One head of a unit.
struct Head<'c> {
    /// Vectors of its query.
    query: Vec<VectorValue<'c>>,
    /// What makes a dot product an exponent.
    factor: FloatValue<'c>,
    /// Its scores in the scratch, later its probabilities.
    scores: PointerValue<'c>,
    max: PointerValue<'c>,
    /// The sum of probabilities.
    total: PointerValue<'c>,
    /// The sum of values, in f64.
    sums: Vec<PointerValue<'c>>,
}

/// `out[t,h] = softmax(q·kᵀ·scale)·v` for the units `begin..end`, a unit being as many heads of a token as go together.
pub(super) fn attention<'c>(e: &Emit<'c, '_>, shape: &Shape<'c>, [q, k, v, out]: [&Operand<'c>; 4]) {
    let width = q.cols() / shape.heads;
    let together = heads_together(shape.heads, shape.kv_heads);
    let slots: Vec<_> = (0..together)
        .map(|_| (e.slot(e.vec_type()), e.wide_slots(1)[0], e.wide_slots(width.div_ceil(LANES as usize))))
        .collect();
    e.for_range(e.int_param(2), e.int_param(3), 1, |unit| {
        let units = shape.heads / together;
        let (token, first) = (e.div(unit, units), e.mul(e.rem(unit, units), together));
        let kv_head = e.div(first, shape.heads / shape.kv_heads);
        let keys = e.add(e.add(shape.past, token), e.index(1));
        let scores = e.mul(e.add(keys, e.index(LANES as usize)), 4);
        let number = |n: usize| e.add(first, e.index(n));
        let head = |(n, (max, total, sums)): (usize, &(_, _, Vec<_>))| Head {
            query: load_query(e, q, token, number(n), width),
            factor: query_factor(e, shape, q, token, number(n)),
            scores: e.at(e.pointer_param(4), e.mul(scores, n)),
            max: *max,
            total: *total,
            sums: sums.clone(),
        };
        let heads: Vec<_> = slots.iter().enumerate().map(head).collect();
        for head in &heads {
            e.set(head.max, e.constant(f32::NEG_INFINITY));
        }
        e.for_range(e.index(0), keys, 1, |key| {
            let vectors = load_head(e, k, key, kv_head, width);
            for head in &heads {
                let score = ok(e.b.build_float_mul(dot(e, &head.query, &vectors), head.factor, ""));
                let score = e.splat(e.narrow_scalar(score));
                e.store(e.at(head.scores, e.mul(key, 4)), e.first(score), 4);
                e.set(head.max, e.fmax(e.get(head.max), score));
            }
        });
        for head in &heads {
            let max = if shape.p == DType::E4M3 { e.ceil(e.get(head.max)) } else { e.get(head.max) };
            softmax(e, shape.p, head.scores, keys, max, head.total);
        }
        weighted_sums(e, shape, v, kv_head, width, keys, &heads);
        for (n, head) in heads.iter().enumerate() {
            let total = e.splat_wide(e.reduce_wide(e.get_wide(head.total)));
            let row = out.row(e, 0, token);
            for_lanes(width, |lanes, have| {
                let offset = e.add(e.mul(number(n), width), e.index(lanes * LANES as usize));
                e.store_floats(row, offset, e.narrow(e.fdiv(e.get_wide(head.sums[lanes]), total)), have);
            });
        }
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

/// What turns a dot product into a base-2 exponent, in f64: the query's own scale, and `scale · log2 e`.
fn query_factor<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape<'c>,
    q: &Operand<'c>,
    token: IntValue<'c>,
    head: IntValue<'c>,
) -> FloatValue<'c> {
    let factor = e.ctx.f64_type().const_float(f64::from(shape.scale * std::f32::consts::LOG2_E));
    if q.ty.scheme.is_plain() {
        return factor;
    }
    ok(e.b.build_float_mul(e.widen_scalar(q.load_scale(e, 1, token, head)), factor, ""))
}

/// The dot product of a query with a key, in f64. A lane has a few products of FP8 values, which f32 adds exactly.
fn dot<'c>(e: &Emit<'c, '_>, query: &[VectorValue<'c>], key: &[VectorValue<'c>]) -> FloatValue<'c> {
    let pairs = key.iter().zip(query);
    let sum =
        pairs.fold(None, |sum, (x, y)| Some(sum.map_or_else(|| e.fmul(*x, *y), |sum| e.fma(*x, *y, sum))));
    e.reduce_wide(e.widen(sum.expect("a head has channels")))
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
    e.clear_wide(&[total]);
    e.for_range(e.index(0), keys, LANES as usize, |key| {
        let score = e.load_floats(scores, key, DType::F32, LANES);
        let exp = e.exp2_wide(e.widen(e.fsub(score, max)));
        let p = if p == DType::E4M3 {
            e.round_e4m3(e.narrow(e.fmul(exp, e.wide_constant(f64::from(e4m3::MAX)))))
        } else {
            e.narrow(exp)
        };
        e.store_floats(scores, key, p, LANES);
        e.add_wide(total, e.widen(p));
    });
}

/// The sum of values under the probabilities of each head.
fn weighted_sums<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape<'c>,
    v: &Operand<'c>,
    kv_head: IntValue<'c>,
    width: usize,
    keys: IntValue<'c>,
    heads: &[Head<'c>],
) {
    for head in heads {
        e.clear_wide(&head.sums);
    }
    let weight =
        |head: &Head<'c>, key| e.first(e.load_floats(head.scores, key, DType::F32, 1)).into_float_value();
    let few_bits = v.ty.scheme.0.first().is_some_and(|level| level.dtype == DType::E4M3);
    if !(few_bits && shape.p == DType::E4M3) {
        return e.for_range(e.index(0), keys, 1, |key| {
            let values = load_head(e, v, key, kv_head, width);
            for head in heads {
                let weight = e.splat_wide(e.widen_scalar(weight(head, key)));
                for (slot, value) in head.sums.iter().zip(&values) {
                    e.accumulate_wide(*slot, weight, e.widen(*value));
                }
            }
        });
    }
    let sums: Vec<_> = heads.iter().map(|head| e.slots(head.sums.len())).collect();
    e.for_range(e.index(0), keys, CHUNK, |first| {
        for sums in &sums {
            e.clear(sums);
        }
        e.for_range(first, e.min(keys, e.add(first, e.index(CHUNK))), 1, |key| {
            let values = load_head(e, v, key, kv_head, width);
            for (head, sums) in heads.iter().zip(&sums) {
                let weight = e.splat(weight(head, key));
                sums.iter().zip(&values).for_each(|(sum, value)| e.accumulate(*sum, weight, *value));
            }
        });
        for (head, sums) in heads.iter().zip(&sums) {
            head.sums.iter().zip(sums).for_each(|(total, sum)| e.add_wide(*total, e.widen(e.get(*sum))));
        }
    });
}
