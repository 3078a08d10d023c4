//! Many tokens: weights of four channels are decoded once for a block of tokens, whose activations stay in the level-2 cache.

use inkwell::values::{IntValue, PointerValue};

use fireq_ir::plan::{BLOCK, LINEAR_ROWS};
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
    /// Blocks of a row.
    blocks: usize,
    /// Decoded weights of a chunk: for each block that of each channel.
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
    let (blocks, tile, scratch) =
        (super::blocks(w), CpuTile::of_registers(e.registers, LINEAR_ROWS), e.pointer_param(4));
    let together = tile.together(blocks * elements.bytes());
    let weights = LINEAR_ROWS * elements.chunk() * elements.bytes();
    let totals = together * LINEAR_ROWS * 4 * elements.lanes as usize;
    let at = |bytes: usize| e.at(scratch, e.index(bytes));
    let b =
        Blocked { e, elements, blocks, weights: scratch, totals: at(weights), packed: at(weights + totals) };
    e.for_range(e.index(0), tokens, together, |first| {
        let count = e.min(e.sub(tokens, first), e.index(together));
        e.for_range(e.index(0), count, 1, |t| {
            elements.pack(e, x, x.row(e, 0, e.add(first, t)), blocks, b.row(t));
        });
        e.for_range(e.int_param(2), e.int_param(3), 1, |unit| {
            let channels = super::channels(e, w, unit);
            let [codes, scales] = [0, 1].map(|part| channels.map(|channel| w.row(e, part, channel)));
            let empty = elements.wide(e).const_zero();
            e.for_range(e.index(0), e.mul(count, LINEAR_ROWS), 1, |n| e.store(b.total(n), empty, 8));
            chunks(e, w, elements.chunk(), &mut |chunk| {
                b.decode(chunk, codes, scales);
                let full = e.mul(e.div(count, tile.tokens), tile.tokens);
                e.for_range(e.index(0), full, tile.tokens, |t| b.tile(chunk, t, tile.tokens));
                e.for_range(full, count, 1, |t| b.tile(chunk, t, 1));
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
        self.e.row(self.packed, token, self.blocks * self.elements.bytes())
    }

    fn total(&self, n: IntValue<'c>) -> PointerValue<'c> {
        self.e.row(self.totals, n, 4 * self.elements.lanes as usize)
    }

    fn weight(&self, block: IntValue<'c>, channel: usize) -> PointerValue<'c> {
        let block = self.e.row(self.weights, block, LINEAR_ROWS * self.elements.bytes());
        self.e.at(block, self.e.index(channel * self.elements.bytes()))
    }

    fn decode(
        &self,
        chunk: &Chunk<'c, '_>,
        codes: [PointerValue<'c>; LINEAR_ROWS],
        scales: [PointerValue<'c>; LINEAR_ROWS],
    ) {
        let e = self.e;
        chunk.groups(e, |scale, first, blocks| {
            let lookups = scales.map(|scales| self.elements.lookup(e, scales, scale));
            e.for_count(blocks, |block| {
                let block = e.add(first, block);
                for (r, (codes, lookup)) in codes.iter().zip(&lookups).enumerate() {
                    let from = e.row(*codes, e.add(chunk.block, block), BLOCK / 2);
                    self.elements.store(e, self.weight(block, r), &self.elements.decode(e, from, lookup));
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
        e.for_count(chunk.len(), |block| {
            let x_block = e.add(chunk.block, block);
            let xs: Vec<_> =
                rows.iter().map(|row| elements.load(e, e.row(*row, x_block, elements.bytes()))).collect();
            let ws: Vec<_> = (0..LINEAR_ROWS).map(|r| elements.load(e, self.weight(block, r))).collect();
            for (n, sum) in sums.iter().enumerate() {
                let pairs = ws[n % LINEAR_ROWS].iter().zip(&xs[n / LINEAR_ROWS]);
                let from = e.load(elements.sum(e), *sum, 4).into_vector_value();
                e.store(*sum, pairs.fold(from, |s, (w, x)| elements.multiply_add(e, s, *w, *x)), 4);
            }
        });
        for (n, sum) in sums.iter().enumerate() {
            elements.promote(e, *sum, self.total(e.add(e.mul(first, LINEAR_ROWS), e.index(n))));
        }
    }
}
