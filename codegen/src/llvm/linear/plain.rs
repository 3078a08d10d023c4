//! Weights that are numbers, or E4M3 codes with a scale for each channel: tiles of channels and tokens read both as they are.

use inkwell::values::{FloatValue, IntValue, PointerValue, VectorValue};

use fireq_ir::DType;
use fireq_ir::plan::LINEAR_ROWS;
use fireq_kernels::CpuTile;

use super::super::e4m3::UNIT;
use super::super::emit::{Emit, LANES};
use super::super::operand::Operand;
use super::scaled;

/// `out[t,n]` for the units of channels `begin..end` and all tokens.
pub(super) fn linear<'c>(
    e: &Emit<'c, '_>,
    x: &Operand<'c>,
    w: &Operand<'c>,
    out: &Operand<'c>,
    tokens: IntValue<'c>,
) {
    let tile = CpuTile::prefill(e.registers, LINEAR_ROWS);
    e.for_range(e.int_param(2), e.int_param(3), 1, |unit| {
        let full = e.mul(e.div(tokens, tile.tokens), tile.tokens);
        e.for_range(e.index(0), full, tile.tokens, |token| {
            for first in (0..LINEAR_ROWS).step_by(tile.rows) {
                emit_tile(e, &tile, [x, w, out], e.add(e.mul(unit, LINEAR_ROWS), e.index(first)), token);
            }
        });
        e.for_range(full, tokens, 1, |token| {
            emit_tile(e, &CpuTile::decode(LINEAR_ROWS), [x, w, out], e.mul(unit, LINEAR_ROWS), token);
        });
    });
}

/// One register tile. Channels beyond the last are the last again: the same result is stored twice.
fn emit_tile<'c>(
    e: &Emit<'c, '_>,
    tile: &CpuTile,
    [x, w, out]: [&Operand<'c>; 3],
    channel: IntValue<'c>,
    token: IntValue<'c>,
) {
    let last = e.index(w.rows() - 1);
    let channels: Vec<_> = (0..tile.rows).map(|r| e.min(e.add(channel, e.index(r)), last)).collect();
    let tokens: Vec<_> = (0..tile.tokens).map(|t| e.add(token, e.index(t))).collect();
    let sums = e.slots(tile.rows * tile.tokens);
    e.clear(&sums);
    let x_rows: Vec<_> = tokens.iter().map(|t| x.row(e, 0, *t)).collect();
    let w_rows: Vec<_> = channels.iter().map(|n| w.row(e, 0, *n)).collect();
    e.for_chunks(w.cols(), |k, have| {
        if tile.tokens == 1 {
            prefetch_next_unit(e, w, w_rows[0], k);
        }
        let xs: Vec<_> = x_rows.iter().map(|row| e.load_floats(*row, k, x.stored(0), have)).collect();
        for (r, row) in w_rows.iter().enumerate() {
            let weights = weights(e, w, *row, k, have);
            xs.iter().enumerate().for_each(|(t, x)| e.accumulate(sums[r * xs.len() + t], *x, weights));
        }
    });
    for (r, channel) in channels.iter().enumerate() {
        let factor = factor(e, w, *channel);
        for (t, token) in tokens.iter().enumerate() {
            let sum = e.reduce_wide(e.widen(e.get(sums[r * tile.tokens + t])));
            let sum = scaled(e, sum, [factor, x.row_factor(e, *token)]);
            e.store(e.at(out.row(e, 0, *token), e.mul(*channel, 4)), sum, 4);
        }
    }
}

/// Asks for what the next unit reads of memory while this one is at channel `k`: units follow each other, and what processors
/// foresee by themselves ends with each row.
fn prefetch_next_unit<'c>(e: &Emit<'c, '_>, w: &Operand<'c>, first: PointerValue<'c>, k: IntValue<'c>) {
    let (bytes, unit) = (w.stored(0).bits() / 8, LINEAR_ROWS * w.parts[0].0.row_bytes());
    let at = e.add(e.mul(k, LINEAR_ROWS * bytes), e.index(unit));
    e.prefetch(e.at(first, at), LINEAR_ROWS * LANES as usize * bytes);
}

/// `have` weights of a row from channel `k` on: as they are, or in units of [`UNIT`].
fn weights<'c>(
    e: &Emit<'c, '_>,
    w: &Operand<'c>,
    row: PointerValue<'c>,
    k: IntValue<'c>,
    have: u32,
) -> VectorValue<'c> {
    match w.stored(0) {
        DType::E4M3 => e.load_e4m3(row, k, have),
        dtype => e.load_floats(row, k, dtype, have),
    }
}

/// What sums of a channel are multiplied with, where that is anything.
fn factor<'c>(e: &Emit<'c, '_>, w: &Operand<'c>, channel: IntValue<'c>) -> Option<FloatValue<'c>> {
    let scale = w.row_factor(e, channel)?;
    Some(e.first(e.fmul(e.splat(scale), e.constant(UNIT))).into_float_value())
}
