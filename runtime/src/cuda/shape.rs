//! What the launches of a step depend on, beside what the host writes for it: a graph of them serves all steps of a shape.
//!
//! Shapes of steps with one token for each sequence change rarely while sequences grow. Numbers of keys count in ranges between
//! which launches differ, and keys are split as those of longer sequences would be, by no more than a sixteenth.

use fireq_kernels::cuda::program::{Argument, Between, Count, Launch, Program, When};
use fireq_kernels::cuda::splits::Split;
use fireq_kernels::cuda::{DecodeAttention, Grid, QUERIES, Sequence};
use fireq_kernels::pages::TILE;

use super::room::Room;

/// All that launches depend on, but for those that there is one of for each sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub tokens: usize,
    pub sequences: usize,
    /// The most tokens of a sequence.
    pub longest: usize,
    /// Rows whose logits are wanted.
    pub selected: usize,
    /// Tokens to choose: as many as rows, or none.
    pub draws: usize,
    pub runs: usize,
    pub tiles: usize,
    /// The least number of keys of the longest sequence with which the same launches run.
    pub keys: usize,
    pub split: Split,
}

impl Shape {
    /// A number of the step, for launches for one sequence that sequence's.
    pub fn count(&self, count: Count, of: Option<&Sequence>, room: &Room) -> usize {
        match count {
            Count::Tokens => self.tokens,
            Count::Parted if self.split.parts > 1 => self.tokens,
            Count::Parted => 0,
            Count::Selected => self.selected,
            Count::Runs => self.runs,
            Count::Queries => self.tiles * QUERIES,
            Count::Parts => self.split.parts,
            Count::PartTiles => self.split.tiles,
            Count::PartKeys => self.split.tiles * TILE,
            Count::Past => of.map_or(0, |sequence| sequence.past),
            Count::PageTable => room.page_table(),
            Count::Positions => room.positions,
        }
    }
}

/// Makes the shapes of a program's steps.
pub(super) struct Shapes {
    room: Room,
    /// Numbers of keys from which on other launches run, in order.
    bounds: Vec<usize>,
    /// The attention that splits keys.
    pub attention: Option<DecodeAttention>,
    /// The steps in which launches read how they are split.
    readers: Vec<When>,
    /// The last split, of these numbers of keys: it takes longer to find than anything else here.
    last: Option<(Vec<usize>, Split)>,
}

impl Shapes {
    pub fn new(program: &Program, room: Room) -> Self {
        let between = |launch: &Launch| launch.when.keys;
        let ends = |Between(from, to): Between| [Some(from), to.map(|to| to.saturating_add(1))];
        let mut bounds: Vec<usize> =
            program.launches.iter().filter_map(between).flat_map(ends).flatten().collect();
        bounds.sort_unstable();
        let attention = program.launches.iter().find_map(|launch| match launch.grid {
            Grid::Splits(of) => Some(of),
            _ => None,
        });
        let readers = program.launches.iter().filter(|launch| reads_split(launch));
        // Their own rows may be none because of the split.
        let readers = readers.map(|launch| When { rows: None, ..launch.when }).collect();
        Shapes { room, bounds, attention, readers, last: None }
    }

    /// The shape of a step of these sequences, with so many entries of everything else.
    pub fn of(&mut self, sequences: &[Sequence], counts: Counts) -> Shape {
        let Counts { selected, draws, runs, tiles } = counts;
        let most = sequences.iter().map(|s| s.past + s.tokens).max().unwrap_or(0);
        let longest = sequences.iter().map(|s| s.tokens).max().unwrap_or(0);
        let keys = self.bounds.iter().copied().rfind(|bound| *bound <= most).unwrap_or(0);
        let split = self.readers.iter().any(|when| when.holds(0, longest, keys));
        Shape {
            tokens: sequences.iter().map(|s| s.tokens).sum(),
            sequences: sequences.len(),
            longest,
            selected,
            draws,
            runs,
            tiles,
            keys,
            split: if split { self.split(sequences) } else { self.whole() },
        }
    }

    /// All keys in one part, however many.
    fn whole(&self) -> Split {
        Split { tiles: self.room.page_table(), parts: 1 }
    }

    /// How keys are split, into no more parts than there is room for.
    fn split(&mut self, sequences: &[Sequence]) -> Split {
        let Some(attention) = self.attention else { return self.whole() };
        let each = |s: &Sequence| s.past + 1..=s.past + s.tokens;
        let coarse = |keys: usize| coarse(keys.div_ceil(TILE)).min(self.room.page_table()) * TILE;
        let keys: Vec<usize> = sequences.iter().flat_map(each).map(coarse).collect();
        if let Some((_, split)) = self.last.as_ref().filter(|(of, _)| *of == keys) {
            return *split;
        }
        let most = keys.iter().map(|keys| keys / TILE).max().unwrap_or(1);
        let room = (self.room.parts() / keys.len().max(1)).max(1);
        let mut split = attention.split(&keys);
        if split.parts > room {
            let tiles = most.div_ceil(room);
            split = Split { tiles, parts: most.div_ceil(tiles) };
        }
        if split.parts == 1 {
            split = self.whole();
        }
        self.last = Some((keys, split));
        split
    }
}

/// Entries that a step has, beside its sequences.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub selected: usize,
    pub draws: usize,
    pub runs: usize,
    pub tiles: usize,
}

fn reads_split(launch: &Launch) -> bool {
    let of_split =
        |count: &Count| matches!(count, Count::Parted | Count::Parts | Count::PartTiles | Count::PartKeys);
    let argument = |argument: &Argument| matches!(argument, Argument::Count(count) if of_split(count));
    matches!(launch.grid, Grid::Splits(_)) || of_split(&launch.rows) || launch.arguments.iter().any(argument)
}

/// The next of the numbers of tiles that steps are told apart by: all up to 16, then sixteen from one power of two to the next.
fn coarse(tiles: usize) -> usize {
    let step = 1 << (tiles.saturating_sub(1) / 16).max(1).ilog2();
    tiles.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_tiles_are_rounded_up_by_no_more_than_a_sixteenth() {
        assert_eq!([1, 15, 16, 17, 31, 33, 100, 129].map(coarse), [1, 15, 16, 17, 31, 34, 100, 136]);
        for tiles in 1..5000 {
            let rounded = coarse(tiles);
            assert!((tiles..=tiles + tiles / 16).contains(&rounded), "{tiles}: {rounded}");
            assert_eq!(coarse(rounded), rounded);
        }
    }
}
