//! Linear layers. Units are four output channels; sums are kept in registers.

mod blocked;
mod elements;
mod plain;
mod single;
mod walk;

use inkwell::values::{FloatValue, IntValue};

use fireq_ir::DType;
use fireq_ir::plan::LINEAR_ROWS;
use fireq_kernels::{CpuTile, VectorRegisters};

use super::emit::{Emit, ok};
use super::operand::Operand;
use elements::Elements;

/// Why the tiles are what they are, for the manifest.
pub(super) fn reason(registers: VectorRegisters) -> String {
    let tile = CpuTile::of_registers(registers, LINEAR_ROWS);
    format!(
        "tiles of {} channels x {} tokens: their sums fill three quarters of {} registers of {} lanes; weights are decoded once for a block of tokens, for one token on the way",
        tile.rows, tile.tokens, registers.count, registers.lanes
    )
}

/// `out[t,n] = (Σ_k x[t,k]·w[n,k]) · c[n] · s[t]` for the units of channels `begin..end` and all tokens.
pub(super) fn linear<'c>(
    e: &Emit<'c, '_>,
    x: &Operand<'c>,
    w: &Operand<'c>,
    out: &Operand<'c>,
    tokens: IntValue<'c>,
) {
    if w.ty.scheme.is_plain() || w.ty.dtype == DType::E4M3 {
        return plain::linear(e, x, w, out, tokens);
    }
    let elements = Elements::of(e, x, w);
    e.if_else(
        e.equal_int(tokens, 1),
        || single::linear(e, &elements, [x, w, out]),
        || blocked::linear(e, &elements, [x, w, out], tokens),
    );
}

/// A sum in f64 times the scales of its channel and its token, as f32.
fn scaled<'c>(e: &Emit<'c, '_>, sum: FloatValue<'c>, scales: [Option<FloatValue<'c>>; 2]) -> FloatValue<'c> {
    let times = |sum, scale| ok(e.b.build_float_mul(sum, e.widen_scalar(scale), ""));
    e.narrow_scalar(scales.into_iter().flatten().fold(sum, times))
}

/// The channels of a unit. Those beyond the last are the last again: the same result is stored twice.
fn channels<'c>(e: &Emit<'c, '_>, w: &Operand<'c>, unit: IntValue<'c>) -> [IntValue<'c>; LINEAR_ROWS] {
    let (first, last) = (e.mul(unit, LINEAR_ROWS), e.index(w.rows() - 1));
    std::array::from_fn(|r| e.min(e.add(first, e.index(r)), last))
}
