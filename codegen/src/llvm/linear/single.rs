//! One token: weights are decoded on the way to their only product.

use fireq_ir::plan::{BLOCK, LINEAR_ROWS};

use super::super::emit::Emit;
use super::super::operand::Operand;
use super::elements::Elements;
use super::scaled;
use super::walk::chunks;

/// Blocks of codes in a cache line.
const LINE: usize = 4;

/// `out[0,n]` for the units of channels `begin..end`; activations are packed into the scratch. Rows are too short
/// for processors to see where they lead, so that each asks for the same place of the next unit.
pub(super) fn linear<'c>(e: &Emit<'c, '_>, elements: &Elements, [x, w, out]: [&Operand<'c>; 3]) {
    let (packed, zero) = (e.pointer_param(4), e.index(0));
    elements.pack(e, x, x.row(e, 0, zero), super::blocks(w), packed);
    let next_unit = LINEAR_ROWS * w.parts[0].0.row_bytes();
    let sums: Vec<_> = (0..LINEAR_ROWS).map(|_| e.slot(elements.sum(e))).collect();
    let totals: Vec<_> = (0..LINEAR_ROWS).map(|_| e.slot(elements.wide(e))).collect();
    e.for_range(e.int_param(2), e.int_param(3), 1, |unit| {
        let channels = super::channels(e, w, unit);
        let [codes, scales] = [0, 1].map(|part| channels.map(|channel| w.row(e, part, channel)));
        for total in &totals {
            e.store(*total, elements.wide(e).const_zero(), 8);
        }
        chunks(e, w, elements.chunk(), &mut |chunk| {
            for sum in &sums {
                e.store(*sum, elements.sum(e).const_zero(), 4);
            }
            chunk.groups(e, |scale, first, blocks| {
                let lookups = scales.map(|scales| elements.lookup(e, scales, scale));
                for (codes, line) in
                    codes.iter().flat_map(|codes| (0..blocks.div_ceil(LINE)).map(move |n| (codes, n)))
                {
                    let from = e.row(*codes, e.add(chunk.block, first), BLOCK / 2);
                    e.prefetch(e.at(from, e.index(next_unit + line * LINE * BLOCK / 2)));
                }
                e.for_count(blocks, |block| {
                    let block = e.add(e.add(chunk.block, first), block);
                    let xs = elements.load(e, e.row(packed, block, elements.bytes()));
                    for ((codes, lookup), sum) in codes.iter().zip(&lookups).zip(&sums) {
                        let ws = elements.decode(e, e.row(*codes, block, BLOCK / 2), lookup);
                        let from = e.load(elements.sum(e), *sum, 4).into_vector_value();
                        let to =
                            ws.iter().zip(&xs).fold(from, |s, (w, x)| elements.multiply_add(e, s, *w, *x));
                        e.store(*sum, to, 4);
                    }
                });
            });
            for (sum, total) in sums.iter().zip(&totals) {
                elements.promote(e, *sum, *total);
            }
        });
        let token_scale = x.row_factor(e, zero);
        for (channel, total) in channels.into_iter().zip(&totals) {
            let sum = elements.total(e, *total);
            let sum = scaled(e, sum, [w.row_factor(e, channel), token_scale]);
            e.store(e.at(out.row(e, 0, zero), e.mul(channel, 4)), sum, 4);
        }
    });
}
