//! Linear layers: units of four output channels, each against tiles of tokens, sums in registers.

use inkwell::values::{FloatValue, IntValue, PointerValue};

use fireq_ir::plan::{BLOCK, LINEAR_ROWS};
use fireq_ir::{DType, Per};
use fireq_kernels::{CpuTile, VectorRegisters};

use super::emit::{Emit, LANES, ok};
use super::operand::Operand;

/// Why the tiles are what they are, for the manifest.
pub(super) fn reason(registers: VectorRegisters) -> String {
    let (tile, rest) = (CpuTile::prefill(registers, LINEAR_ROWS), CpuTile::decode(LINEAR_ROWS));
    format!(
        "tiles of {} channels x {} tokens: their sums fill half of {} registers of {} lanes; {} x {} for tokens left over",
        tile.rows, tile.tokens, registers.count, registers.lanes, rest.rows, rest.tokens
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
    let sums = Sums { narrow: e.slots(tile.rows * tile.tokens), wide: e.wide_slots(tile.rows * tile.tokens) };
    e.clear(&sums.narrow);
    e.clear_wide(&sums.wide);
    let x_rows: Vec<_> = tokens.iter().map(|t| x.row(e, 0, *t)).collect();
    let w_rows: Vec<_> = channels.iter().map(|n| w.row(e, 0, *n)).collect();
    if w.ty.scheme.is_plain() {
        plain_mainloop(e, x, w, &x_rows, &w_rows, &sums);
    } else {
        let scales: Vec<_> = channels.iter().map(|n| w.row(e, 1, *n)).collect();
        codes_mainloop(e, w, &x_rows, &w_rows, &scales, &sums);
    }
    for (r, channel) in channels.iter().enumerate() {
        for (t, token) in tokens.iter().enumerate() {
            let sum = e.reduce_add_wide(e.get_wide(sums.wide[r * tile.tokens + t]));
            let sum = scaled(e, sum, w.row_factor(e, *channel));
            let sum = scaled(e, sum, x.row_factor(e, *token));
            e.store(e.at(out.row(e, 0, *token), e.mul(*channel, 4)), e.narrow_scalar(sum), 4);
        }
    }
}

/// Running sums of a tile. Products of FP8 values have eight significant bits, so a few dozen of them add up exactly in
/// f32; every [`PROMOTE`] channels they move on to f64.
struct Sums<'c> {
    narrow: Vec<PointerValue<'c>>,
    wide: Vec<PointerValue<'c>>,
}

/// Channels after which sums are promoted to f64: 32 products in each lane.
const PROMOTE: usize = 512;

impl<'c> Sums<'c> {
    fn promote(&self, e: &Emit<'c, '_>) {
        for (narrow, wide) in self.narrow.iter().zip(&self.wide) {
            e.add_wide(*wide, e.widen(e.get(*narrow)));
        }
        e.clear(&self.narrow);
    }
}

/// A sum in f64 times a scale.
fn scaled<'c>(e: &Emit<'c, '_>, x: FloatValue<'c>, factor: Option<FloatValue<'c>>) -> FloatValue<'c> {
    factor.map_or(x, |f| ok(e.b.build_float_mul(x, e.widen_scalar(f), "")))
}

fn plain_mainloop<'c>(
    e: &Emit<'c, '_>,
    x: &Operand<'c>,
    w: &Operand<'c>,
    x_rows: &[PointerValue<'c>],
    w_rows: &[PointerValue<'c>],
    sums: &Sums<'c>,
) {
    e.for_chunks(w.cols(), |k, have| {
        let xs: Vec<_> = x_rows.iter().map(|row| e.load_floats(*row, k, x.stored(0), have)).collect();
        for (r, row) in w_rows.iter().enumerate() {
            let weights = e.load_floats(*row, k, w.stored(0), have);
            xs.iter().enumerate().for_each(|(t, x)| e.accumulate(sums.narrow[r * xs.len() + t], *x, weights));
        }
    });
    sums.promote(e);
}

/// Groups of channels share a table; the blocks of a group follow one another, so a block's place is its number.
fn codes_mainloop<'c>(
    e: &Emit<'c, '_>,
    w: &Operand<'c>,
    x_rows: &[PointerValue<'c>],
    w_rows: &[PointerValue<'c>],
    scales: &[PointerValue<'c>],
    sums: &Sums<'c>,
) {
    let level = w.ty.scheme.0[0];
    let extent = if level.per == Per::Row { w.cols() } else { level.extent(w.cols()).min(w.cols()) };
    let per_group = extent.div_ceil(BLOCK);
    let group = |index: IntValue<'c>, blocks: usize| {
        let tables: Vec<_> = scales.iter().map(|s| e.table(*s, index, level.dtype)).collect();
        e.for_count(blocks, |block| {
            let block = e.add(e.mul(index, per_group), block);
            let k = e.mul(block, BLOCK);
            let halves = |row: &PointerValue<'c>| {
                let second = e.add(k, e.index(LANES as usize));
                [k, second].map(|k| e.load_floats(*row, k, DType::F32, LANES))
            };
            let xs: Vec<_> = x_rows.iter().map(halves).collect();
            for (r, (row, table)) in w_rows.iter().zip(&tables).enumerate() {
                let weights = e.decode_block(e.at(*row, e.mul(block, BLOCK / 2)), table);
                for (t, x) in xs.iter().enumerate() {
                    (0..2)
                        .for_each(|half| e.accumulate(sums.narrow[r * xs.len() + t], x[half], weights[half]));
                }
            }
        });
    };
    let (full, together) = (w.cols() / extent, (PROMOTE / extent).max(1));
    e.for_count(full / together, |turn| {
        e.for_count(together, |index| group(e.add(e.mul(turn, together), index), per_group));
        sums.promote(e);
    });
    (full / together * together..full).for_each(|index| group(e.index(index), per_group));
    if !w.cols().is_multiple_of(extent) {
        group(e.index(full), (w.cols() % extent).div_ceil(BLOCK));
    }
    sums.promote(e);
}
