//! How scales of I4 groups are chosen at run time, bit for bit what [`fireq_ir::quant`] chooses.

use inkwell::FloatPredicate;
use inkwell::types::VectorType;
use inkwell::values::{FloatValue, IntValue, VectorValue};

use fireq_ir::{CLIP_RATIOS, DType, Fit};

use super::emit::{Emit, LANES, ok};
use super::quantize::{Group, absmax, nearest_i4, round_scale};

/// The scale of a group of codes, in every lane, as `dtype` stores it.
pub(super) fn i4_scale<'c>(e: &Emit<'c, '_>, group: &Group<'c>, fit: Fit, dtype: DType) -> VectorValue<'c> {
    let top = absmax(e, group);
    if fit == Fit::Absmax {
        return round_scale(e, e.fdiv(top, e.constant(7.0)), dtype);
    }
    let eighth = e.fmul(extreme(e, group, top), e.constant(-0.125));
    let clipped = |ratio| round_scale(e, e.fmul(eighth, e.constant(ratio)), dtype);
    if fit == Fit::Signed { clipped(1.0) } else { least_error(e, group, CLIP_RATIOS.map(clipped), dtype) }
}

/// The first element of magnitude `top`, the largest. Each lane keeps the least of `2·channel + sign` over its elements
/// of that magnitude; the least of all ends in the sign.
fn extreme<'c>(e: &Emit<'c, '_>, group: &Group<'c>, top: VectorValue<'c>) -> VectorValue<'c> {
    let ty = e.ctx.i32_type().vec_type(LANES);
    let (least, none) = (e.slot(ty), e.int(u32::MAX - 1));
    e.store(least, none, 64);
    e.for_chunks(group.channels, |c, have| {
        let x = group.load(e, c, have);
        let sign = e.select(e.less(x, e.constant(0.0)), e.int(1), e.int(0));
        let key = e.iadd(twice_channel(e, c), sign);
        let key = e.select(e.equal(e.fabs(x), top), key, none);
        let before = e.load(ty, least, 64);
        e.store(least, e.intrinsic("llvm.umin", &[ty.into()], &[before, key.into()]), 64);
    });
    let first = e.intrinsic("llvm.vector.reduce.umin", &[ty.into()], &[e.load(ty, least, 64)]);
    let sign = e.shl(e.splat_int(first.into_int_value()), 31);
    e.float_of_bits(e.or(e.bits(top), sign))
}

/// `2·(c + lane)` in each lane.
fn twice_channel<'c>(e: &Emit<'c, '_>, c: IntValue<'c>) -> VectorValue<'c> {
    let i32 = e.ctx.i32_type();
    let lanes: Vec<_> = (0..LANES).map(|lane| i32.const_int(u64::from(2 * lane), false)).collect();
    let first = ok(e.b.build_int_truncate(e.mul(c, 2), i32, ""));
    e.iadd(e.splat_int(first), VectorType::const_vector(&lanes))
}

/// The first of `scales` under which the group has the least squared error.
fn least_error<'c, const N: usize>(
    e: &Emit<'c, '_>,
    group: &Group<'c>,
    scales: [VectorValue<'c>; N],
    dtype: DType,
) -> VectorValue<'c> {
    let errors = squared_errors(e, group, &scales, dtype);
    let tried = errors.into_iter().zip(scales);
    let best = tried.reduce(|best, next| {
        let less = ok(e.b.build_float_compare(FloatPredicate::OLT, next.0, best.0, ""));
        let error = ok(e.b.build_select(less, next.0, best.0, "")).into_float_value();
        let scale = ok(e.b.build_select(less, next.1, best.1, "")).into_vector_value();
        (error, scale)
    });
    best.expect("there are ratios").1
}

/// Σ(x − element)² under each of `scales`, in f64: one walk over the group for all of them.
fn squared_errors<'c>(
    e: &Emit<'c, '_>,
    group: &Group<'c>,
    scales: &[VectorValue<'c>],
    dtype: DType,
) -> Vec<FloatValue<'c>> {
    let sums = e.wide_slots(scales.len());
    e.clear_wide(&sums);
    e.for_chunks(group.channels, |c, have| {
        let x = group.load(e, c, have);
        for (scale, sum) in scales.iter().zip(&sums) {
            let element = e.fmul(nearest_i4(e, x, *scale), *scale);
            let element = if dtype == DType::E4M3 { e.round_e4m3(element) } else { element };
            let error = e.fsub(e.widen(x), e.widen(element));
            e.accumulate_wide(*sum, error, error);
        }
    });
    sums.into_iter().map(|sum| e.reduce_wide(e.get_wide(sum))).collect()
}
