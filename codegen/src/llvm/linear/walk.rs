//! The order in which blocks of codes are gone through.

use inkwell::values::IntValue;

use fireq_ir::Per;
use fireq_ir::plan::BLOCK;

use super::super::emit::Emit;
use super::super::operand::Operand;

/// Blocks of a row that follow one another, under one table or several.
pub(super) struct Chunk<'c, 'a> {
    /// The first block of the row.
    pub block: IntValue<'c>,
    /// The first of the row's scales.
    pub scale: IntValue<'c>,
    /// Blocks under this scale and those behind it.
    pub groups: &'a [usize],
}

impl<'c> Chunk<'c, '_> {
    /// Blocks in all.
    pub fn len(&self) -> usize {
        self.groups.iter().sum()
    }

    /// Calls `body(scale of the row, first block of the chunk, blocks)` for each of its groups.
    pub fn groups(&self, e: &Emit<'c, '_>, mut body: impl FnMut(IntValue<'c>, IntValue<'c>, usize)) {
        let [blocks, rest @ ..] = self.groups else { return };
        if rest.iter().all(|n| n == blocks) {
            e.for_count(self.groups.len(), |n| body(e.add(self.scale, n), e.mul(n, *blocks), *blocks));
            return;
        }
        let mut first = 0;
        for (n, blocks) in self.groups.iter().enumerate() {
            body(e.add(self.scale, e.index(n)), e.index(first), *blocks);
            first += blocks;
        }
    }
}

/// Walks a row of `w` in chunks of at most `most` blocks, whole groups where one fits.
pub(super) fn chunks<'c>(
    e: &Emit<'c, '_>,
    w: &Operand<'c>,
    most: usize,
    body: &mut dyn FnMut(&Chunk<'c, '_>),
) {
    let level = w.ty.scheme.0[0];
    let extent = if level.per == Per::Row { w.cols() } else { level.extent(w.cols()).min(w.cols()) };
    let (full, group, tail) =
        (w.cols() / extent, extent.div_ceil(BLOCK), (w.cols() % extent).div_ceil(BLOCK));
    if group > most {
        e.for_count(full, |n| part(e, e.mul(n, group), n, group, most, body));
        return part(e, e.index(full * group), e.index(full), tail, most, body);
    }
    let together = most / group;
    e.for_count(full / together, |n| {
        let (block, scale) = (e.mul(n, together * group), e.mul(n, together));
        body(&Chunk { block, scale, groups: &vec![group; together] });
    });
    let done = full / together * together;
    let rest: Vec<usize> =
        std::iter::repeat_n(group, full - done).chain((tail > 0).then_some(tail)).collect();
    if !rest.is_empty() {
        body(&Chunk { block: e.index(done * group), scale: e.index(done), groups: &rest });
    }
}

/// A group of more blocks than a chunk has.
fn part<'c>(
    e: &Emit<'c, '_>,
    first: IntValue<'c>,
    scale: IntValue<'c>,
    blocks: usize,
    most: usize,
    body: &mut dyn FnMut(&Chunk<'c, '_>),
) {
    e.for_count(blocks / most, |n| {
        body(&Chunk { block: e.add(first, e.mul(n, most)), scale, groups: &[most] });
    });
    if !blocks.is_multiple_of(most) {
        let block = e.add(first, e.index(blocks / most * most));
        body(&Chunk { block, scale, groups: &[blocks % most] });
    }
}
