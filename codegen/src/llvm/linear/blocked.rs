//! Many tokens: weights of four channels are decoded once for a block of tokens, whose activations stay in the level-2 cache.

use std::collections::BTreeSet;

use inkwell::values::{IntValue, PointerValue};

use fireq_ir::plan::LINEAR_ROWS;
use fireq_kernels::CpuTile;

use super::super::emit::Emit;
use super::super::operand::Operand;
use super::elements::Elements;
use super::scaled;
use super::walk::{Chunk, chunks};

/// One layer's work and where it lies in the thread's scratch.
struct Blocked<'c, 'e, 'm> {
    e: &'e Emit<'c, 'm>,
    elements: &'e Elements,
    /// Bytes of a row of activations.
    row_bytes: usize,
    /// Decoded weights of a chunk: for each step that of each channel.
    weights: PointerValue<'c>,
    /// Sums in f64: for each token that of each channel.
    totals: PointerValue<'c>,
    /// Rows of activations.
    packed: PointerValue<'c>,
}

/// `out[t,n]` for the units of channels `begin..end` and all tokens.
pub(super) fn linear<'c>(
    e: &Emit<'c, '_>,
    elements: &Elements,
    [x, w, out]: [&Operand<'c>; 3],
    tokens: IntValue<'c>,
) {
    let (row_bytes, tile, scratch) =
        (elements.row_bytes(w), CpuTile::of_registers(e.registers, LINEAR_ROWS), e.pointer_param(4));
    let together = tile.together(row_bytes);
    let weights = LINEAR_ROWS * elements.chunk() * elements.bytes();
    let totals = together * LINEAR_ROWS * 4 * elements.lanes as usize;
    let at = |bytes: usize| e.at(scratch, e.index(bytes));
    let (packed, totals) = (at(weights + totals), at(weights));
    let b = Blocked { e, elements, row_bytes, weights: scratch, totals, packed };
    e.for_range(e.index(0), tokens, together, |first| {
        let count = e.min(e.sub(tokens, first), e.index(together));
        e.for_range(e.index(0), count, 1, |t| {
            elements.pack(e, x, w, x.row(e, 0, e.add(first, t)), b.row(t));
        });
        e.for_range(e.int_param(2), e.int_param(3), 1, |unit| {
            let channels = super::channels(e, w, unit);
            let (codes, scales) = (elements.codes(e, w, unit, channels), channels.map(|n| w.row(e, 1, n)));
            let empty = elements.wide(e).const_zero();
            e.for_range(e.index(0), e.mul(count, LINEAR_ROWS), 1, |n| e.store(b.total(n), empty, 8));
            chunks(e, w, elements, &mut |chunk| {
                b.decode(chunk, codes, scales);
                // What is left of whole tiles has a tile of half the size before single tokens.
                let mut done = e.index(0);
                for tokens in BTreeSet::from([tile.tokens, tile.tokens.div_ceil(2), 1]).into_iter().rev() {
                    let end = e.add(done, e.mul(e.div(e.sub(count, done), tokens), tokens));
                    e.for_range(done, end, tokens, |t| b.tile(chunk, t, tokens));
                    done = end;
                }
            });
            let channel_scales = channels.map(|channel| w.row_factor(e, channel));
            e.for_range(e.index(0), count, 1, |t| {
                let token = e.add(first, t);
                let token_scale = x.row_factor(e, token);
                for (r, channel) in channels.into_iter().enumerate() {
                    let sum = elements.total(e, b.total(e.add(e.mul(t, LINEAR_ROWS), e.index(r))));
                    let sum = scaled(e, sum, [channel_scales[r], token_scale]);
                    e.store(e.at(out.row(e, 0, token), e.mul(channel, 4)), sum, 4);
                }
            });
        });
    });
}

impl<'c> Blocked<'c, '_, '_> {
    fn row(&self, token: IntValue<'c>) -> PointerValue<'c> {
        self.e.row(self.packed, token, self.row_bytes)
    }

    fn total(&self, n: IntValue<'c>) -> PointerValue<'c> {
        self.e.row(self.totals, n, 4 * self.elements.lanes as usize)
    }

    fn weight(&self, step: IntValue<'c>, channel: usize) -> PointerValue<'c> {
        let step = self.e.row(self.weights, step, LINEAR_ROWS * self.elements.bytes());
        self.e.at(step, self.e.index(channel * self.elements.bytes()))
    }

    fn decode(
        &self,
        chunk: &Chunk<'c, '_>,
        codes: [PointerValue<'c>; LINEAR_ROWS],
        scales: [PointerValue<'c>; LINEAR_ROWS],
    ) {
        let e = self.e;
        chunk.groups(e, |scale, first, steps| {
            let lookups = scales.map(|scales| self.elements.lookup(e, scales, scale));
            e.for_count(steps, |step| {
                let step = e.add(first, step);
                self.elements.prefetch(e, e.row(codes[0], e.add(chunk.step, step), self.elements.stride()));
                for (r, (codes, lookup)) in codes.iter().zip(&lookups).enumerate() {
                    let from = e.row(*codes, e.add(chunk.step, step), self.elements.stride());
                    for part in self.elements.parts() {
                        for (v, w) in self.elements.decode(e, from, part, lookup) {
                            self.elements.store(e, self.weight(step, r), v, w);
                        }
                    }
                }
            });
        });
    }

    /// Adds the products of a chunk to the sums of the tokens from `first` on.
    fn tile(&self, chunk: &Chunk<'c, '_>, first: IntValue<'c>, tokens: usize) {
        let (e, elements) = (self.e, self.elements);
        let sums: Vec<_> = (0..tokens * LINEAR_ROWS).map(|_| e.slot(elements.sum(e))).collect();
        for sum in &sums {
            e.store(*sum, elements.sum(e).const_zero(), 4);
        }
        let rows: Vec<_> = (0..tokens).map(|t| self.row(e.add(first, e.index(t)))).collect();
        e.for_count(chunk.len(), |step| {
            let at = e.add(chunk.step, step);
            let xs: Vec<_> = rows.iter().map(|row| e.row(*row, at, elements.bytes())).collect();
            // The shorter side's operands are held, the other's come one after the other: with the sums they fit the
            // registers.
            for v in 0..elements.vectors() {
                let x = |t: usize| elements.load(e, xs[t], v);
                let w = |r: usize| elements.load(e, self.weight(step, r), v);
                let few = tokens < LINEAR_ROWS;
                let held: Vec<_> =
                    if few { (0..tokens).map(x).collect() } else { (0..LINEAR_ROWS).map(w).collect() };
                for n in 0..tokens.max(LINEAR_ROWS) {
                    let other = if few { w(n) } else { x(n) };
                    for (m, held) in held.iter().enumerate() {
                        let (r, t, w, x) = if few { (n, m, other, *held) } else { (m, n, *held, other) };
                        elements.accumulate(e, sums[t * LINEAR_ROWS + r], w, x);
                    }
                }
            }
        });
        for (n, sum) in sums.iter().enumerate() {
            elements.promote(e, *sum, self.total(e.add(e.mul(first, LINEAR_ROWS), e.index(n))));
        }
    }
}
