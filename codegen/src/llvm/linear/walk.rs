//! The order in which steps of codes are gone through.

use inkwell::values::IntValue;

use fireq_ir::Per;
use fireq_ir::plan::BLOCK;

use super::super::emit::Emit;
use super::super::operand::Operand;
use super::elements::Elements;

/// Steps of a row that follow one another, under one table or several.
pub(super) struct Chunk<'c, 'a> {
    /// The first step of the row.
    pub step: IntValue<'c>,
    /// The first of the row's scales.
    pub scale: IntValue<'c>,
    /// Steps under this scale and those behind it.
    pub groups: &'a [usize],
}

impl<'c> Chunk<'c, '_> {
    /// Steps in all.
    pub fn len(&self) -> usize {
        self.groups.iter().sum()
    }

    /// Calls `body(scale of the row, first step of the chunk, steps)` for each of its groups.
    pub fn groups(&self, e: &Emit<'c, '_>, mut body: impl FnMut(IntValue<'c>, IntValue<'c>, usize)) {
        let [steps, rest @ ..] = self.groups else { return };
        if rest.iter().all(|n| n == steps) {
            e.for_count(self.groups.len(), |n| body(e.add(self.scale, n), e.mul(n, *steps), *steps));
            return;
        }
        let mut first = 0;
        for (n, steps) in self.groups.iter().enumerate() {
            body(e.add(self.scale, e.index(n)), e.index(first), *steps);
            first += steps;
        }
    }
}

/// Walks a row of `w` in chunks, whole groups where one fits.
pub(super) fn chunks<'c>(
    e: &Emit<'c, '_>,
    w: &Operand<'c>,
    elements: &Elements,
    body: &mut dyn FnMut(&Chunk<'c, '_>),
) {
    let level = w.ty.scheme.0[0];
    let extent = if level.per == Per::Row { w.cols() } else { level.extent(w.cols()).min(w.cols()) };
    let steps = |cols: usize| cols.div_ceil(elements.step * BLOCK);
    let (most, full, group, tail) =
        (elements.chunk(), w.cols() / extent, steps(extent), steps(w.cols() % extent));
    if group > most {
        e.for_count(full, |n| part(e, e.mul(n, group), n, group, most, body));
        return part(e, e.index(full * group), e.index(full), tail, most, body);
    }
    let together = most / group;
    e.for_count(full / together, |n| {
        let (step, scale) = (e.mul(n, together * group), e.mul(n, together));
        body(&Chunk { step, scale, groups: &vec![group; together] });
    });
    let done = full / together * together;
    let rest: Vec<usize> =
        std::iter::repeat_n(group, full - done).chain((tail > 0).then_some(tail)).collect();
    if !rest.is_empty() {
        body(&Chunk { step: e.index(done * group), scale: e.index(done), groups: &rest });
    }
}

/// A group of more steps than a chunk has.
fn part<'c>(
    e: &Emit<'c, '_>,
    first: IntValue<'c>,
    scale: IntValue<'c>,
    steps: usize,
    most: usize,
    body: &mut dyn FnMut(&Chunk<'c, '_>),
) {
    e.for_count(steps / most, |n| {
        body(&Chunk { step: e.add(first, e.mul(n, most)), scale, groups: &[most] });
    });
    if !steps.is_multiple_of(most) {
        let step = e.add(first, e.index(steps / most * most));
        body(&Chunk { step, scale, groups: &[steps % most] });
    }
}
