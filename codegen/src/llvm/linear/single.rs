//! One token: weights are decoded on the way to their only product. Channels come one after the other, so that codes are a
//! single stream, which processors read ahead: several rows side by side take twice as long.

use fireq_ir::plan::LINEAR_ROWS;

use super::super::emit::Emit;
use super::super::operand::Operand;
use super::elements::Elements;
use super::scaled;
use super::walk::chunks;

/// Bytes of a cache line.
const LINE: usize = 64;
/// How far ahead codes are asked for: a page, into which processors do not look by themselves.
const AHEAD: usize = 4096;

/// `out[0,n]` for the units of channels `begin..end`; activations are packed into the scratch.
pub(super) fn linear<'c>(e: &Emit<'c, '_>, elements: &Elements, [x, w, out]: [&Operand<'c>; 3]) {
    let (packed, zero) = (e.pointer_param(4), e.index(0));
    elements.pack(e, x, w, x.row(e, 0, zero), packed);
    let token_scale = x.row_factor(e, zero);
    let sums: Vec<_> = (0..elements.vectors()).map(|_| e.slot(elements.sum(e))).collect();
    let total = e.slot(elements.wide(e));
    let begin = e.mul(e.int_param(2), LINEAR_ROWS);
    let end = e.min(e.mul(e.int_param(3), LINEAR_ROWS), e.index(w.rows()));
    e.for_range(begin, end, 1, |channel| {
        let [codes, scales] = [0, 1].map(|part| w.row(e, part, channel));
        e.store(total, elements.wide(e).const_zero(), 8);
        chunks(e, w, elements, elements.chunk() * sums.len(), &mut |chunk| {
            for sum in &sums {
                e.store(*sum, elements.sum(e).const_zero(), 4);
            }
            chunk.groups(e, |scale, first, steps| {
                let lookup = elements.lookup(e, scales, scale);
                let first = e.add(chunk.step, first);
                for line in (0..steps * elements.code_bytes()).step_by(LINE) {
                    let codes = e.row(codes, first, elements.code_bytes());
                    e.prefetch(e.at(codes, e.index(AHEAD + line)));
                }
                e.for_count(steps, |step| {
                    let step = e.add(first, step);
                    let x = e.row(packed, step, elements.bytes());
                    let ws = elements.decode(e, e.row(codes, step, elements.code_bytes()), &lookup);
                    for (v, (w, sum)) in ws.into_iter().zip(&sums).enumerate() {
                        elements.accumulate(e, *sum, w, elements.load(e, x, v));
                    }
                });
            });
            for sum in &sums {
                elements.promote(e, *sum, total);
            }
        });
        let sum = scaled(e, elements.total(e, total), [w.row_factor(e, channel), token_scale]);
        e.store(e.at(out.row(e, 0, zero), e.mul(channel, 4)), sum, 4);
    });
}
