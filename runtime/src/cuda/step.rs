//! A step of several sequences: its sizes, and what the host writes for it.

use std::ops::Range;

use fireq_kernels::cuda::params::{Params, Queries, Run};
use fireq_kernels::cuda::program::{Count, Table};
use fireq_kernels::cuda::splits::Split;
use fireq_kernels::cuda::{BLOCK, DecodeAttention, QUERIES, Sequence, prefill_tiles, runs};
use fireq_kernels::pages::TILE;

use super::room::{PAGE, Room};
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

/// The sizes of a step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub sequences: Vec<Sequence>,
    /// The most tokens of a sequence.
    pub longest: usize,
    /// The most keys of a sequence.
    pub keys: usize,
    runs: Vec<Run>,
    tiles: Vec<Queries>,
    tokens: usize,
    selected: usize,
    split: Split,
}

impl Step {
    /// The step of these pieces, where there is room for it. Keys are split as `attention` has it.
    pub fn new(
        pieces: &[Piece<'_>],
        room: &Room,
        attention: Option<&DecodeAttention>,
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
        let keys: Vec<usize> = sequences.iter().flat_map(|s| (1..=s.tokens).map(|n| s.past + n)).collect();
        Ok(Step {
            longest: sequences.iter().map(|s| s.tokens).max().unwrap_or(0),
            keys: keys.iter().copied().max().unwrap_or(0),
            runs: runs(&sequences),
            tiles: prefill_tiles(&sequences),
            tokens: query,
            selected,
            split: split(attention, &keys, room.parts()),
            sequences,
        })
    }

    /// Positions of workspaces that its sequences take.
    pub fn positions(&self) -> usize {
        self.sequences.last().map_or(0, |s| s.key + s.past + s.tokens)
    }

    /// A number of the step, for launches for one sequence that sequence's.
    pub fn count(&self, count: Count, of: Option<&Sequence>, room: &Room) -> usize {
        match count {
            Count::Tokens => self.tokens,
            Count::Parted => {
                if self.split.parts > 1 {
                    self.tokens
                } else {
                    0
                }
            }
            Count::Selected => self.selected,
            Count::Runs => self.runs.len(),
            Count::Queries => self.tiles.len() * QUERIES,
            Count::Parts => self.split.parts,
            Count::PartTiles => self.split.tiles,
            Count::PartKeys => self.split.tiles * TILE,
            Count::Past => of.map_or(0, |sequence| sequence.past),
            Count::PageTable => room.page_table(),
            Count::Positions => room.positions,
        }
    }

    /// What a table holds; draws are another's.
    pub fn table(&self, table: Table, pieces: &[Piece<'_>], room: &Room) -> Vec<u8> {
        match table {
            Table::Runs => self.runs.iter().flat_map(Params::bytes).collect(),
            Table::Tiles => self.tiles.iter().flat_map(Params::bytes).collect(),
            Table::Sequences => words(self.sequences.iter().zip(0..).flat_map(|(s, n)| vec![n; s.tokens])),
            Table::Pages => {
                let row = |piece: &Piece<'_>| {
                    let mut row = piece.pages.to_vec();
                    row.resize(room.page_table(), 0);
                    row
                };
                words(pieces.iter().flat_map(row))
            }
            Table::Draws => vec![],
        }
    }

    /// An input of the plan: token ids, their positions, and which of them are selected.
    pub fn input(&self, name: &str, pieces: &[Piece<'_>]) -> Option<Vec<u8>> {
        let each = || pieces.iter().zip(&self.sequences);
        Some(match name {
            "tokens" => words(pieces.iter().flat_map(|piece| piece.tokens.iter().copied())),
            "positions" => {
                words(self.sequences.iter().flat_map(|s| (s.past..s.past + s.tokens).map(|p| p as u32)))
            }
            "select" => words(each().flat_map(|(p, s)| p.selected.clone().map(|n| (s.query + n) as u32))),
            _ => return None,
        })
    }
}

fn words(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
    numbers.flat_map(u32::to_le_bytes).collect()
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

/// How keys are split, into no more parts than there is room for.
fn split(attention: Option<&DecodeAttention>, keys: &[usize], room: usize) -> Split {
    let most = keys.iter().map(|keys| keys.div_ceil(TILE)).max().unwrap_or(1);
    let found = attention.map_or(Split { tiles: most, parts: 1 }, |attention| attention.split(keys));
    let parts = (room / keys.len().max(1)).max(1);
    if found.parts <= parts {
        return found;
    }
    let tiles = most.div_ceil(parts);
    Split { tiles, parts: most.div_ceil(tiles) }
}
