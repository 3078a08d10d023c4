//! One token: weights are decoded on the way to their only product.

use fireq_ir::plan::LINEAR_ROWS;

use super::super::emit::Emit;
use super::super::operand::Operand;
use super::elements::Elements;
use super::scaled;
use super::walk::chunks;

/// `out[0,n]` for the units of channels `begin..end`; activations are packed into the scratch.
pub(super) fn linear<'c>(e: &Emit<'c, '_>, elements: &Elements, [x, w, out]: [&Operand<'c>; 3]) {
    let (packed, zero) = (e.pointer_param(4), e.index(0));
    elements.pack(e, x, w, x.row(e, 0, zero), packed);
    let token_scale = x.row_factor(e, zero);
    let sums: Vec<_> = (0..LINEAR_ROWS).map(|_| e.slot(elements.sum(e))).collect();
    let totals: Vec<_> = (0..LINEAR_ROWS).map(|_| e.slot(elements.wide(e))).collect();
    e.for_range(e.int_param(2), e.int_param(3), 1, |unit| {
        let channels = super::channels(e, w, unit);
        let (codes, scales) = (elements.codes(e, w, unit, channels), channels.map(|n| w.row(e, 1, n)));
        for total in &totals {
            e.store(*total, elements.wide(e).const_zero(), 8);
        }
        chunks(e, w, elements, &mut |chunk| {
            for sum in &sums {
                e.store(*sum, elements.sum(e).const_zero(), 4);
            }
            chunk.groups(e, |scale, first, steps| {
                let lookups = scales.map(|scales| elements.lookup(e, scales, scale));
                e.for_count(steps, |step| {
                    let step = e.add(e.add(chunk.step, first), step);
                    let x = e.row(packed, step, elements.bytes());
                    let codes = codes.map(|codes| e.row(codes, step, elements.stride()));
                    elements.prefetch(e, codes[0]);
                    for part in elements.parts() {
                        for ((codes, lookup), sum) in codes.iter().zip(&lookups).zip(&sums) {
                            for (v, w) in elements.decode(e, *codes, part.clone(), lookup) {
                                elements.accumulate(e, *sum, w, elements.load(e, x, v));
                            }
                        }
                    }
                });
            });
            for (sum, total) in sums.iter().zip(&totals) {
                elements.promote(e, *sum, *total);
            }
        });
        for (channel, total) in channels.into_iter().zip(&totals) {
            let sum = scaled(e, elements.total(e, *total), [w.row_factor(e, channel), token_scale]);
            e.store(e.at(out.row(e, 0, zero), e.mul(channel, 4)), sum, 4);
        }
    });
}
