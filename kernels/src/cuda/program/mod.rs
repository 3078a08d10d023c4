//! What a GPU is told for every step: launches in order, and what each of their parameters is. The artifact holds it as JSON;
//! a runtime fills in addresses and the counts of a step, and needs to know of no kernel what it does.
//!
//! ```
//! use fireq_kernels::cuda::program::{Argument, Count, Table, parameters};
//!
//! let arguments = [Argument::Table(Table::Runs), Argument::U32(7), Argument::Elements(4)];
//! let (bytes, places) = parameters(&arguments);
//! assert_eq!((bytes, places), (24, vec![0, 8, 16]));
//! ```

mod shape;
mod verify;

use serde::{Deserialize, Serialize};

use super::unit::{Cta, Grid};

pub use shape::{Affine, MapShape};

/// The launches of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Memory beside the plan's buffers.
    pub regions: Vec<Region>,
    /// In order of execution.
    pub launches: Vec<Launch>,
    /// The choice of a token for each selected row, where the plan has logits; its last argument is the region of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Launch>,
}

/// Memory beside the plan's buffers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// What it holds.
    pub name: String,
    /// Bytes for each unit of `per`.
    pub bytes: usize,
    /// What there are as many of as the runtime makes room for.
    pub per: Extent,
}

/// What memory has room for, as the runtime decides when it loads a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// One of it.
    Once,
    /// Tokens of a step.
    Tokens,
    /// Positions of all sequences of a step that attention of many queries reads: a multiple of 16.
    Positions,
    /// Pages of the cache, of a layer.
    Pages,
    /// Parts of all tokens' keys: see [`DecodeAttention::split`](super::DecodeAttention::split).
    Parts,
}

/// A kernel, and with what it is launched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The function, and the name of the cubin that has it.
    pub function: String,
    /// The symbol of the plan's launch that it does, or a part of it.
    pub symbol: String,
    /// The buffer that it leaves to later launches of the plan; none where it is one of several and not the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<usize>,
    /// The steps in which it runs.
    #[serde(default, skip_serializing_if = "When::is_always")]
    pub when: When,
    /// Whether it may begin before the launch in front of it has ended, for which its kernel waits itself
    /// (`kernels/cuda/ptx/launch.cuh`). A runtime that launches it plainly computes the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlaps: bool,
    /// What its rows are.
    pub rows: Count,
    /// What every CTA has.
    pub cta: Cta,
    /// CTAs for the rows.
    pub grid: Grid,
    /// The fields of the structure that it takes, in order.
    pub arguments: Vec<Argument>,
}

/// The steps in which a launch runs: of each number that is given, those within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The launch's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Between>,
    /// The most tokens of a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<Between>,
    /// The most keys of a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Between>,
}

/// At least the first number, and at most the second where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between(pub usize, pub Option<usize>);

impl When {
    fn is_always(&self) -> bool {
        *self == When::default()
    }

    /// Whether a launch on `rows` rows runs in a step whose longest sequence has `longest` tokens, and whose sequences have at
    /// most `keys` keys.
    pub fn holds(self, rows: usize, longest: usize, keys: usize) -> bool {
        let within = |n: usize, of: Option<Between>| {
            of.is_none_or(|Between(from, to)| from <= n && to.is_none_or(|to| n <= to))
        };
        within(rows, self.rows) && within(longest, self.longest) && within(keys, self.keys)
    }
}

/// A number that each step has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Its tokens.
    Tokens,
    /// Its tokens where keys of any are in several parts, and none otherwise.
    Parted,
    /// Rows whose logits are wanted.
    Selected,
    /// Entries of [`Table::Runs`].
    Runs,
    /// Entries of [`Table::Tiles`], times the queries of each.
    Queries,
    /// Parts of the token that has the most keys.
    Parts,
    /// Tiles of 64 keys of a part.
    PartTiles,
    /// Keys of a part.
    PartKeys,
    /// Keys before the step, of the sequence that the launch is for: there is one launch for each that has any.
    Past,
    /// Pages that a row of [`Table::Pages`] has room for.
    PageTable,
    /// Positions that regions have room for.
    Positions,
}

/// What the host writes for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// [`Run`](super::params::Run)s.
    Runs,
    /// `u32`, for each sequence its pages in order; of a launch for one sequence, its own.
    Pages,
    /// `u32`, for each token its sequence.
    Sequences,
    /// [`Queries`](super::params::Queries), as [`prefill_tiles`](super::prefill_tiles) has them.
    Tiles,
    /// A [`Draw`](super::params::Draw) for each selected row.
    Draws,
}

/// A field of a kernel's parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Argument {
    /// The address of an operand that is left out: 0.
    Nothing,
    /// The address of a part of a buffer of the plan.
    Buffer {
        /// Which buffer.
        buffer: usize,
        /// Which of its parts.
        part: usize,
        /// Bytes behind its beginning.
        offset: usize,
    },
    /// The address of a region.
    Region {
        /// Which region.
        region: usize,
        /// Bytes behind its beginning for each position before the first key of the sequence that the launch is for.
        by_key: usize,
    },
    /// The address of what the host wrote.
    Table(Table),
    /// A TMA descriptor.
    Map {
        /// Where the tensor begins.
        of: Box<Argument>,
        /// What it is.
        shape: MapShape,
    },
    /// A `u32` that steps have in common.
    U32(u32),
    /// An `f32` that steps have in common.
    F32(f32),
    /// A `u32` of the step.
    Count(Count),
    /// A `u64`: the launch's rows times this.
    Elements(usize),
}

impl Argument {
    /// Bytes, and their alignment.
    fn size(&self) -> (usize, usize) {
        match self {
            Argument::Map { .. } => (128, 64),
            Argument::U32(_) | Argument::F32(_) | Argument::Count(_) => (4, 4),
            _ => (8, 8),
        }
    }
}

/// Bytes of the structure that these arguments are the fields of, and where each begins: as C++ lays it out.
pub fn parameters(arguments: &[Argument]) -> (usize, Vec<usize>) {
    let (mut end, mut align, mut places) = (0usize, 1, vec![]);
    for (bytes, own) in arguments.iter().map(Argument::size) {
        let at = end.next_multiple_of(own);
        places.push(at);
        (end, align) = (at + bytes, align.max(own));
    }
    (end.next_multiple_of(align), places)
}

impl Program {
    /// As JSON, with a line for each region and launch.
    pub fn to_json(&self) -> String {
        let lines = |items: Vec<String>| items.join(",\n");
        let json = "numbers and names have a JSON form";
        let regions = self.regions.iter().map(|region| serde_json::to_string(region).expect(json)).collect();
        let launches =
            self.launches.iter().map(|launch| serde_json::to_string(launch).expect(json)).collect();
        let sample = self.sample.as_ref().map(|launch| serde_json::to_string(launch).expect(json));
        let sample = sample.map(|launch| format!(",\n\"sample\":{launch}")).unwrap_or_default();
        format!("{{\"regions\":[\n{}\n],\n\"launches\":[\n{}\n]{sample}}}\n", lines(regions), lines(launches))
    }
}
