//! Run-time quantization of rows: activations and queries to E4M3, keys and values to I4.

use inkwell::values::{IntValue, PointerValue, VectorValue};

use fireq_ir::plan::BLOCK;
use fireq_ir::{DType, Fit, e4m3};

use super::emit::{Emit, LANES, ok};
use super::fit::i4_scale;
use super::operand::Operand;

/// Calls `body(group, channels)` for each group of a row; the last may be short.
pub(super) fn for_groups<'c>(
    e: &Emit<'c, '_>,
    cols: usize,
    extent: usize,
    body: impl Fn(IntValue<'c>, usize),
) {
    e.for_count(cols / extent, |index| body(index, extent));
    if !cols.is_multiple_of(extent) {
        body(e.index(cols / extent), cols % extent);
    }
}

/// The numbers under one scale.
pub(super) struct Group<'c> {
    row: PointerValue<'c>,
    first: IntValue<'c>,
    dtype: DType,
    pub channels: usize,
}

impl<'c> Group<'c> {
    /// `have` numbers from channel `c` of the group, zeros in the lanes beyond.
    pub fn load(&self, e: &Emit<'c, '_>, c: IntValue<'c>, have: u32) -> VectorValue<'c> {
        e.load_floats(self.row, e.add(self.first, c), self.dtype, have)
    }
}

/// Codes and scales of the rows `begin..end`, bit for bit what [`fireq_ir::quant`] computes.
pub(super) fn quantize<'c>(e: &Emit<'c, '_>, fit: Fit, x: &Operand<'c>, out: &Operand<'c>) {
    let level = out.ty.scheme.0[0];
    let extent = level.extent(x.cols());
    e.for_range(e.int_param(2), e.int_param(3), 1, |row| {
        let (from, codes, scales) = (x.row(e, 0, row), out.row(e, 0, row), out.row(e, 1, row));
        for_groups(e, x.cols(), extent, |index, channels| {
            let group = Group { row: from, first: e.mul(index, extent), dtype: x.stored(0), channels };
            let stored = e.mul(index, extent.next_multiple_of(BLOCK));
            let scale = match out.ty.dtype {
                DType::I4 => i4_scale(e, &group, fit, level.dtype),
                _ => e4m3_scale(e, &group, level.dtype),
            };
            store_scale(e, scales, index, scale, level.dtype);
            match out.ty.dtype {
                DType::I4 => store_i4(e, &group, scale, e.at(codes, e.div(stored, 2))),
                _ => store_e4m3(e, &group, scale, e.at(codes, e.mul(stored, 4))),
            }
        });
    });
}

/// The largest magnitude of a group, in every lane.
pub(super) fn absmax<'c>(e: &Emit<'c, '_>, group: &Group<'c>) -> VectorValue<'c> {
    let max = e.slot(e.vec_type());
    e.set(max, e.constant(0.0));
    e.for_chunks(group.channels, |c, have| {
        e.set(max, e.fmax(e.get(max), e.fabs(group.load(e, c, have))));
    });
    e.splat(e.reduce_max(e.get(max)))
}

/// The nearest scale that its dtype can store.
pub(super) fn round_scale<'c>(e: &Emit<'c, '_>, scale: VectorValue<'c>, dtype: DType) -> VectorValue<'c> {
    match dtype {
        DType::E4M3 => e.round_e4m3(scale),
        DType::BF16 => e.round_bf16(scale),
        _ => scale,
    }
}

/// absmax/448 as its dtype stores it; 1 for all zeros.
fn e4m3_scale<'c>(e: &Emit<'c, '_>, group: &Group<'c>, dtype: DType) -> VectorValue<'c> {
    let scale = round_scale(e, e.fdiv(absmax(e, group), e.constant(e4m3::MAX)), dtype);
    e.select(e.less(e.constant(0.0), scale), scale, e.constant(1.0))
}

fn store_scale<'c>(
    e: &Emit<'c, '_>,
    scales: PointerValue<'c>,
    index: IntValue<'c>,
    scale: VectorValue<'c>,
    dtype: DType,
) {
    let narrow = |v: VectorValue<'c>, bits: u32| {
        let ty = e
            .ctx
            .custom_width_int_type(std::num::NonZeroU32::new(bits).expect("8 or 16"))
            .expect("a small width");
        ok(e.b.build_int_truncate(e.first(v).into_int_value(), ty, ""))
    };
    match dtype {
        DType::E4M3 => e.store(e.at(scales, index), narrow(e.encode_e4m3(scale), 8), 1),
        DType::BF16 => e.store(e.at(scales, e.mul(index, 2)), narrow(e.shr(e.bits(scale), 16), 16), 2),
        _ => e.store(e.at(scales, e.mul(index, 4)), e.first(scale), 4),
    }
}

/// E4M3 values widened to f32; whole blocks, zeros after the last channel.
fn store_e4m3<'c>(e: &Emit<'c, '_>, group: &Group<'c>, scale: VectorValue<'c>, to: PointerValue<'c>) {
    let channels = group.channels;
    e.for_chunks(channels, |c, have| {
        e.store_floats(to, c, e.round_e4m3(e.fdiv(group.load(e, c, have), scale)), LANES);
    });
    for c in
        (channels.next_multiple_of(LANES as usize)..channels.next_multiple_of(BLOCK)).step_by(LANES as usize)
    {
        e.store_floats(to, e.index(c), e.constant(0.0), LANES);
    }
}

/// I4 codes in whole blocks, zero codes after the last channel.
fn store_i4<'c>(e: &Emit<'c, '_>, group: &Group<'c>, scale: VectorValue<'c>, to: PointerValue<'c>) {
    let (lanes, channels) = (LANES as usize, group.channels);
    let block = |index: IntValue<'c>, have: usize| {
        let first = e.mul(index, BLOCK);
        let half = |skip: usize| {
            let have = have.saturating_sub(skip).min(lanes) as u32;
            if have == 0 {
                return e.int(0);
            }
            e.to_int(nearest_i4(e, group.load(e, e.add(first, e.index(skip)), have), scale))
        };
        let bytes = e.or(e.and(half(0), 15), e.shl(half(lanes), 4));
        let bytes = ok(e.b.build_int_truncate(bytes, e.ctx.i8_type().vec_type(LANES), ""));
        e.store(e.at(to, e.mul(index, BLOCK / 2)), bytes, 1);
    };
    e.for_count(channels / BLOCK, |index| block(index, BLOCK));
    if !channels.is_multiple_of(BLOCK) {
        block(e.index(channels / BLOCK), channels % BLOCK);
    }
}

/// The nearest integer code as f32, ties to even; zero under a scale of zero.
pub(super) fn nearest_i4<'c>(
    e: &Emit<'c, '_>,
    x: VectorValue<'c>,
    scale: VectorValue<'c>,
) -> VectorValue<'c> {
    let code = e.round_even(e.fdiv(x, scale));
    let code = e.fmax(e.fmin(code, e.constant(7.0)), e.constant(-8.0));
    e.select(e.equal(scale, e.constant(0.0)), e.constant(0.0), code)
}
