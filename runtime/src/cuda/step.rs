//! A step of several sequences: its shape, and what the host writes for it.

use std::ops::Range;

use fireq_kernels::cuda::params::{Draw, Params, Queries, Run};
use fireq_kernels::cuda::{BLOCK, Sequence, prefill_tiles, runs};

use super::inbox::{Item, Layout};
use super::room::{PAGE, Room};
use super::shape::{Counts, Shape, Shapes};
use crate::RuntimeError;

/// The tokens of a sequence in a step.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Their ids, at least one.
    pub tokens: &'a [u32],
    /// Positions of the sequence before them.
    pub past: usize,
    /// The sequence's pages in order, enough for all positions.
    pub pages: &'a [u32],
    /// Those of the tokens whose logits are wanted.
    pub selected: Range<usize>,
}

/// Pieces with their draws.
pub(super) struct Step<'a> {
    pub shape: Shape,
    /// That of its shape.
    pub layout: Layout,
    pub sequences: Vec<Sequence>,
    pieces: &'a [Piece<'a>],
    draws: &'a [Draw],
    runs: Vec<Run>,
    tiles: Vec<Queries>,
}

impl<'a> Step<'a> {
    /// The step of these pieces, where there is room for it, and of draws for its selected rows or none.
    pub fn new(
        pieces: &'a [Piece<'a>],
        draws: &'a [Draw],
        room: &Room,
        shapes: &mut Shapes,
    ) -> Result<Self, RuntimeError> {
        let (mut sequences, mut query, mut key) = (vec![], 0, 0);
        for piece in pieces {
            check(piece, room)?;
            let (tokens, past) = (piece.tokens.len(), piece.past);
            sequences.push(Sequence { query, tokens, past, key });
            (query, key) = (query + tokens, key + (past + tokens).next_multiple_of(BLOCK));
        }
        let selected = pieces.iter().map(|piece| piece.selected.len()).sum();
        let fits = [
            (query, room.tokens, "tokens"),
            (selected, room.selected, "logits"),
            (pieces.len(), room.sequences, "sequences"),
        ];
        if let Some((wanted, most, what)) = fits.into_iter().find(|(wanted, most, _)| wanted > most) {
            return Err(too_large(&format!("{wanted} {what}"), most));
        }
        if !draws.is_empty() && draws.len() != selected {
            return Err(RuntimeError::Step(format!("{} draws for {selected} rows", draws.len())));
        }
        let (runs, tiles) = (runs(&sequences), prefill_tiles(&sequences));
        let counts = Counts { selected, draws: draws.len(), runs: runs.len(), tiles: tiles.len() };
        let shape = shapes.of(&sequences, counts);
        let layout = Layout::of(&shape, room);
        Ok(Step { shape, layout, sequences, pieces, draws, runs, tiles })
    }

    /// Positions of workspaces that its sequences take.
    pub fn positions(&self) -> usize {
        self.sequences.last().map_or(0, |s| s.key + s.past + s.tokens)
    }

    /// Writes one of its items, which has as many bytes as its layout says.
    pub fn write(&self, item: Item, to: &mut [u8]) {
        let sequences = || self.sequences.iter();
        let of_pieces = || self.pieces.iter().zip(sequences());
        match item {
            Item::Tokens => words(self.pieces.iter().flat_map(|piece| piece.tokens.iter().copied()), to),
            Item::Positions => {
                words(sequences().flat_map(|s| (s.past..s.past + s.tokens).map(|p| p as u32)), to);
            }
            Item::Select => {
                words(of_pieces().flat_map(|(p, s)| p.selected.clone().map(|n| (s.query + n) as u32)), to);
            }
            Item::Sequences => {
                words(sequences().zip(0..).flat_map(|(s, n)| std::iter::repeat_n(n, s.tokens)), to);
            }
            Item::Runs => structures(&self.runs, to),
            Item::Tiles => structures(&self.tiles, to),
            Item::Draws => structures(self.draws, to),
            Item::Pages => {
                let row = to.len() / self.pieces.len().max(1);
                for (piece, row) in self.pieces.iter().zip(to.chunks_mut(row.max(1))) {
                    words(piece.pages.iter().copied(), row);
                    row[4 * piece.pages.len()..].fill(0);
                }
            }
        }
    }
}

fn words(numbers: impl Iterator<Item = u32>, to: &mut [u8]) {
    for (number, to) in numbers.zip(to.chunks_exact_mut(4)) {
        to.copy_from_slice(&number.to_le_bytes());
    }
}

fn structures<T: Params>(all: &[T], to: &mut [u8]) {
    for (one, to) in all.iter().zip(to.chunks_exact_mut(T::SIZE)) {
        to.copy_from_slice(&one.bytes());
    }
}

fn too_large(what: &str, most: usize) -> RuntimeError {
    RuntimeError::Step(format!("a step of {what}: there is room for {most}"))
}

/// A piece has tokens, fits the context, and has pages that exist for all of its positions.
fn check(piece: &Piece<'_>, room: &Room) -> Result<(), RuntimeError> {
    let (tokens, past) = (piece.tokens.len(), piece.past);
    let end = past.checked_add(tokens).filter(|end| tokens > 0 && *end <= room.context);
    let end = end.ok_or_else(|| {
        RuntimeError::Step(format!("{tokens} tokens after {past} do not fit a context of {}", room.context))
    })?;
    if piece.selected.start > piece.selected.end || piece.selected.end > tokens {
        return Err(RuntimeError::Step(format!("rows {:?} of {tokens} tokens", piece.selected)));
    }
    let (found, wanted) = (piece.pages.len(), end.div_ceil(PAGE));
    if !(wanted..=room.page_table()).contains(&found) {
        return Err(RuntimeError::Step(format!("{found} pages for {end} positions, which take {wanted}")));
    }
    match piece.pages.iter().find(|page| **page as usize >= room.pages) {
        Some(page) => Err(too_large(&format!("page {page}"), room.pages)),
        None => Ok(()),
    }
}
