//! Kernels that work row by row: norms, rope, lookups, element-wise arithmetic, cache append.

use inkwell::values::{IntValue, VectorValue};

use fireq_ir::DType;

use super::emit::{Emit, LANES, ok};
use super::operand::Operand;

/// Calls `body` for every row in `begin..end`.
fn for_rows<'c>(e: &Emit<'c, '_>, body: impl FnOnce(IntValue<'c>)) {
    e.for_range(e.int_param(2), e.int_param(3), 1, body);
}

/// `out[r,c] = f(a[r,c], b)`, where `b` is none, the same element of a matrix, or element `c` of a vector.
pub(super) fn elementwise<'c>(
    e: &Emit<'c, '_>,
    a: &Operand<'c>,
    b: Option<&Operand<'c>>,
    out: &Operand<'c>,
    f: impl Fn(VectorValue<'c>, VectorValue<'c>) -> VectorValue<'c>,
) {
    for_rows(e, |row| {
        let a_row = a.row(e, 0, row);
        let b_row = b.map(|b| if b.ty.shape.0.len() == 1 { b.base(0) } else { b.row(e, 0, row) });
        let out_row = out.row(e, 0, row);
        e.for_chunks(out.cols(), |c, have| {
            let x = e.load_floats(a_row, c, a.stored(0), have);
            let y = b.zip(b_row).map_or(x, |(b, row)| e.load_floats(row, c, b.stored(0), have));
            e.store_floats(out_row, c, f(x, y), have);
        });
    });
}

pub(super) fn gather<'c>(e: &Emit<'c, '_>, table: &Operand<'c>, index: &Operand<'c>, out: &Operand<'c>) {
    for_rows(e, |row| {
        let wanted = load_i32(e, index, row);
        let wanted = ok(e.b.build_int_z_extend(wanted, e.ctx.i64_type(), ""));
        let (from, to) = (table.row(e, 0, wanted), out.row(e, 0, row));
        e.for_chunks(out.cols(), |c, have| {
            e.store_floats(to, c, e.load_floats(from, c, table.stored(0), have), have);
        });
    });
}

fn load_i32<'c>(e: &Emit<'c, '_>, x: &Operand<'c>, n: IntValue<'c>) -> IntValue<'c> {
    e.load(e.ctx.i32_type(), e.at(x.base(0), e.mul(n, 4)), 4).into_int_value()
}

/// `x / sqrt(mean(x²) + eps) · weight` over each run of the weight's length.
pub(super) fn rms_norm<'c>(
    e: &Emit<'c, '_>,
    eps: f32,
    x: &Operand<'c>,
    weight: &Operand<'c>,
    out: &Operand<'c>,
) {
    let run = weight.cols();
    let sum = e.wide_slots(1);
    for_rows(e, |row| {
        let (from, to) = (x.row(e, 0, row), out.row(e, 0, row));
        e.for_count(x.cols() / run, |n| {
            let first = e.mul(n, run);
            e.clear_wide(&sum);
            e.for_chunks(run, |c, have| {
                let v = e.widen(e.load_floats(from, e.add(first, c), DType::F32, have));
                e.accumulate_wide(sum[0], v, v);
            });
            let factor = e.splat_wide(inverse_rms(e, e.get_wide(sum[0]), run, eps));
            e.for_chunks(run, |c, have| {
                let at = e.add(first, c);
                let v = e.fmul(e.widen(e.load_floats(from, at, DType::F32, have)), factor);
                let w = e.widen(e.load_floats(weight.base(0), c, weight.stored(0), have));
                e.store_floats(to, at, e.narrow(e.fmul(v, w)), have);
            });
        });
    });
}

fn inverse_rms<'c>(
    e: &Emit<'c, '_>,
    squares: VectorValue<'c>,
    n: usize,
    eps: f32,
) -> inkwell::values::FloatValue<'c> {
    let f64 = e.ctx.f64_type();
    let mean = ok(e.b.build_float_div(e.reduce_wide(squares), f64.const_float(n as f64), ""));
    let sum = ok(e.b.build_float_add(mean, f64.const_float(f64::from(eps)), ""));
    let root = e.intrinsic("llvm.sqrt", &[f64.into()], &[sum.into()]).into_float_value();
    ok(e.b.build_float_div(f64.const_float(1.0), root, ""))
}

/// Cosines, then sines, of `position · inv_freq`.
pub(super) fn rope_table<'c>(
    e: &Emit<'c, '_>,
    positions: &Operand<'c>,
    inv_freq: &Operand<'c>,
    out: &Operand<'c>,
) {
    let half = inv_freq.cols();
    for_rows(e, |row| {
        let position = load_i32(e, positions, row);
        let position = ok(e.b.build_signed_int_to_float(position, e.ctx.f32_type(), ""));
        let to = out.row(e, 0, row);
        e.for_chunks(half, |c, have| {
            let frequency = e.load_floats(inv_freq.base(0), c, DType::F32, have);
            let angle = e.widen(e.fmul(frequency, e.splat(position)));
            for (name, offset) in [("llvm.cos", 0), ("llvm.sin", half)] {
                let value =
                    e.intrinsic(name, &[angle.get_type().into()], &[angle.into()]).into_vector_value();
                e.store_floats(to, e.add(c, e.index(offset)), e.narrow(value), have);
            }
        });
    });
}

/// Rotates channel `i` with `i + D/2` of each head.
pub(super) fn rope<'c>(e: &Emit<'c, '_>, x: &Operand<'c>, table: &Operand<'c>, out: &Operand<'c>) {
    let (width, half) = (table.cols(), table.cols() / 2);
    for_rows(e, |row| {
        let (from, to, angles) = (x.row(e, 0, row), out.row(e, 0, row), table.row(e, 0, row));
        e.for_count(x.cols() / width, |head| {
            e.for_chunks(half, |c, have| {
                let first = e.add(e.mul(head, width), c);
                let second = e.add(first, e.index(half));
                let load = |row, i| e.widen(e.load_floats(row, i, DType::F32, have));
                let [a, b] = [first, second].map(|i| load(from, i));
                let [cos, sin] = [c, e.add(c, e.index(half))].map(|i| load(angles, i));
                let turned = [e.fsub(e.fmul(a, cos), e.fmul(b, sin)), e.fadd(e.fmul(b, cos), e.fmul(a, sin))];
                e.store_floats(to, first, e.narrow(turned[0]), have);
                e.store_floats(to, second, e.narrow(turned[1]), have);
            });
        });
    });
}

/// Channels from `start` on of each row.
pub(super) fn slice<'c>(e: &Emit<'c, '_>, start: usize, x: &Operand<'c>, out: &Operand<'c>) {
    for_rows(e, |row| {
        let from = e.at(x.row(e, 0, row), e.index(start * 4));
        ok(e.b.build_memcpy(out.row(e, 0, row), 4, from, 4, e.index(out.cols() * 4)));
    });
}

/// Copies the rows `begin..end` behind the `past` rows of the cache.
pub(super) fn kv_append<'c>(e: &Emit<'c, '_>, past: IntValue<'c>, x: &Operand<'c>, cache: &Operand<'c>) {
    for_rows(e, |row| {
        for (part, (layout, _)) in x.parts.iter().enumerate() {
            let (from, to) = (x.row(e, part, row), cache.row(e, part, e.add(past, row)));
            ok(e.b.build_memcpy(to, 1, from, 1, e.index(layout.row_bytes())));
        }
    });
}

/// Codes back to numbers.
pub(super) fn dequantize<'c>(e: &Emit<'c, '_>, x: &Operand<'c>, out: &Operand<'c>) {
    let level = x.ty.scheme.0[0];
    let extent = level.extent(x.cols());
    let padded = extent.next_multiple_of(fireq_ir::plan::BLOCK);
    for_rows(e, |row| {
        let to = out.row(e, 0, row);
        let outer = (x.parts.len() == 3).then(|| e.splat(x.load_scale(e, 2, row, e.index(0))));
        let group = |index: IntValue<'c>, channels: usize| {
            let table = (x.ty.dtype == DType::I4).then(|| e.table(x.row(e, 1, row), index, level.dtype));
            e.for_chunks(channels, |c, have| {
                let stored = e.add(e.mul(index, padded), c);
                let value = if let Some(table) = &table {
                    decode_lanes(e, x, row, stored, table)
                } else {
                    let scale = e.splat(x.load_scale(e, 1, row, index));
                    e.fmul(e.load_floats(x.row(e, 0, row), stored, DType::F32, LANES), scale)
                };
                let value = outer.map_or(value, |outer| e.fmul(value, outer));
                e.store_floats(to, e.add(e.mul(index, extent), c), value, have);
            });
        };
        super::quantize::for_groups(e, x.cols(), extent, group);
    });
}

/// The 16 numbers from stored position `at`, a multiple of 16: a half of a block.
fn decode_lanes<'c>(
    e: &Emit<'c, '_>,
    x: &Operand<'c>,
    row: IntValue<'c>,
    at: IntValue<'c>,
    table: &super::codes::Table<'c>,
) -> VectorValue<'c> {
    let block = e.mul(e.div(at, fireq_ir::plan::BLOCK), fireq_ir::plan::BLOCK / 2);
    let [low, high] = e.decode_block(e.at(x.row(e, 0, row), block), table);
    let half = e.div(e.rem(at, fireq_ir::plan::BLOCK), LANES as usize);
    let is_low = ok(e.b.build_int_compare(inkwell::IntPredicate::EQ, half, e.index(0), ""));
    ok(e.b.build_select(is_low, low, high, "")).into_vector_value()
}
