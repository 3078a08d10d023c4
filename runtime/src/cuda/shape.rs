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

    const LLAMA: DecodeAttention = DecodeAttention { heads: 32, kv_heads: 8, head: 128, page: 64 };
    const ROOM: Room =
        Room { tokens: 2048, selected: 64, sequences: 64, context: 65536, positions: 8192, pages: 65536 };

    fn shapes() -> Shapes {
        let readers = vec![When { longest: Some(Between(1, Some(4))), ..When::default() }];
        Shapes { room: ROOM, bounds: vec![9, 100], attention: Some(LLAMA), readers, last: None }
    }

    fn shape(shapes: &mut Shapes, pasts: impl Iterator<Item = usize>, tokens: usize) -> Shape {
        let sequences: Vec<Sequence> =
            pasts.map(|past| Sequence { tokens, past, ..Sequence::default() }).collect();
        shapes.of(&sequences, Counts { selected: 0, draws: 0, runs: 0, tiles: 0 })
    }

    /// Batches of 1 to 64 sequences, the first with so many keys and each with so many more than the one before, for 1024 steps.
    #[test]
    fn shapes_change_rarely_and_splits_stay_near_the_best() {
        for (count, from, more) in
            [(1, 100, 0), (1, 30000, 0), (2, 500, 913), (4, 3000, 2013), (16, 1000, 513), (64, 1000, 113)]
        {
            let (mut shapes, mut last, mut changes) = (shapes(), None, 0);
            for step in 0..1024 {
                let pasts = (0..count).map(|n| from + n * more + step);
                let found = shape(&mut shapes, pasts.clone(), 1);
                let keys: Vec<usize> = pasts.map(|past| past + 1).collect();
                let best = LLAMA.cycles(LLAMA.split(&keys), &keys);
                // CTAs stop where keys do.
                let tiles = found.split.tiles.min(keys[count - 1].div_ceil(TILE));
                let slower = LLAMA.cycles(Split { tiles, ..found.split }, &keys) / best;
                assert!(slower < 1.1, "{keys:?}: {slower}");
                changes += usize::from(last.as_ref() != Some(&found));
                last = Some(found);
            }
            assert!(changes <= 16, "{count} from {from}: {changes} changes");
        }
    }

    #[test]
    fn keys_count_where_launches_differ_and_are_split_where_that_is_read() {
        let mut shapes = shapes();
        let keys = [7, 8, 98, 99, 5000].map(|past| shape(&mut shapes, [past, 3].into_iter(), 1).keys);
        assert_eq!(keys, [0, 9, 9, 100, 100]);
        assert_eq!(shape(&mut shapes, [60000].into_iter(), 5).split, shapes.whole());
        assert!(shapes.last.as_ref().is_some_and(|(of, _)| of.len() == 2), "a longer step has no split");
        assert!(shape(&mut shapes, [60000].into_iter(), 4).split.parts > 4);
        // Parts of 1024 tokens and more have no room.
        assert_eq!(shape(&mut shapes, (0..2000).map(|_| 6000), 1).split, shapes.whole());
    }

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
