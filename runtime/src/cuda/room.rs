//! What a GPU's memory has room for.

use fireq_kernels::cuda::program::Extent;
use fireq_kernels::cuda::splits::Split;
use fireq_kernels::pages::TILE;

use super::shape::Shape;

/// The largest steps that an executor runs, and what its cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Tokens of a step.
    pub tokens: usize,
    /// Rows of a step whose logits are wanted.
    pub selected: usize,
    /// Sequences of a step.
    pub sequences: usize,
    /// Positions of a sequence.
    pub context: usize,
    /// Positions of all sequences that a step with many tokens of one reads, each rounded up to 16.
    pub positions: usize,
    /// Pages of the cache.
    pub pages: usize,
}

/// Positions of a page, as kernels are made for.
pub const PAGE: usize = TILE;
/// Parts of attention that there is always room for: as many as use a GPU with 132 SMs a few times over.
const PARTS: usize = 1024;

impl Room {
    /// Room for one sequence of `context` positions, in steps of `tokens` tokens, all of which may be selected.
    pub fn of_one(context: usize, tokens: usize) -> Self {
        let (context, tokens) = (context.max(1), tokens.clamp(1, context.max(1)));
        let pages = context.div_ceil(PAGE);
        Room { tokens, selected: tokens, sequences: 1, context, positions: context, pages }
    }

    /// Room for whatever either has room for.
    #[must_use]
    pub fn union(self, other: Room) -> Self {
        Room {
            tokens: self.tokens.max(other.tokens),
            selected: self.selected.max(other.selected),
            sequences: self.sequences.max(other.sequences),
            context: self.context.max(other.context),
            positions: self.positions.max(other.positions),
            pages: self.pages.max(other.pages),
        }
    }

    /// At least one of everything, no more rows selected than there are tokens, and positions in whole sixteens.
    pub(super) fn rounded(self) -> Self {
        let tokens = self.tokens.max(1);
        Room {
            tokens,
            selected: self.selected.clamp(1, tokens),
            sequences: self.sequences.max(1),
            context: self.context.max(1),
            positions: self.positions.max(1).next_multiple_of(16),
            pages: self.pages.max(1),
        }
    }

    /// Pages that the table of a sequence has room for.
    pub fn page_table(&self) -> usize {
        self.context.div_ceil(PAGE)
    }

    /// Parts of all tokens' keys.
    pub(super) fn parts(&self) -> usize {
        self.tokens.max(PARTS)
    }

    /// No step has more of anything that the host writes.
    pub(super) fn largest(&self) -> Shape {
        Shape {
            tokens: self.tokens,
            sequences: self.sequences,
            longest: self.tokens,
            selected: self.selected,
            draws: self.selected,
            // Each has a token at least.
            runs: self.tokens,
            tiles: self.tokens,
            keys: self.context,
            split: Split { tiles: self.page_table(), parts: 1 },
        }
    }

    pub(super) fn of(&self, extent: Extent) -> usize {
        match extent {
            Extent::Once => 1,
            Extent::Tokens => self.tokens,
            Extent::Positions => self.positions,
            Extent::Pages => self.pages,
            Extent::Parts => self.parts(),
        }
    }
}
