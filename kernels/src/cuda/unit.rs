//! Generated units: an include, a few names and one instantiation. What varies are template arguments.

use fireq_ir::DType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::include::{IncludeError, resolve};
use super::params::Params;
use super::splits::DecodeAttention;
use crate::LaunchShape;
use crate::pages::TILE;

/// One kernel as it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The function's name, which says what it is specialized for.
    pub name: String,
    /// The unit's text, before includes are resolved.
    pub text: String,
    /// Sizes that it is specialized for, in words.
    pub shape: String,
    /// Threads of a CTA and how work is shared among them, in words.
    pub config: String,
    /// Why it is configured like this.
    pub reason: String,
    /// What every CTA has.
    pub cta: Cta,
    /// CTAs of a launch.
    pub grid: Grid,
}

/// What of a launch does not depend on rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cta {
    /// Its threads.
    pub threads: usize,
    /// CTAs of its cluster, neighbours in x.
    pub cluster: usize,
    /// Bytes of shared memory that the launch gives it.
    pub dynamic_shared: usize,
}

impl Cta {
    /// A CTA of `threads` threads that is a cluster of its own, and has only the shared memory that its kernel declares.
    pub fn of(threads: usize) -> Self {
        Cta { threads, cluster: 1, dynamic_shared: 0 }
    }
}

/// How many CTAs a launch has for the rows of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// One for each row; for norms of runs, one for each run.
    Rows,
    /// This many in y for each row; for the kernel before attention, for each [`Run`](super::params::Run).
    RowParts(usize),
    /// One for every `per_cta` numbers of rows of `cols`.
    Elements {
        /// Numbers of a row.
        cols: usize,
        /// Numbers of a CTA.
        per_cta: usize,
    },
    /// As many clusters in y as have this many heads, one for each CTA, for every `tile` rows.
    Queries {
        /// Rows of a CTA.
        tile: usize,
        /// Query heads.
        heads: usize,
        /// CTAs of a cluster.
        cluster: usize,
    },
    /// One in x for every kv head, one in y for every row, and in z as many as its keys are split among.
    Splits(DecodeAttention),
    /// One in x for every 64 positions before the step, `heads` in y, `parts` in z.
    Tiles64 {
        /// Heads of keys and values.
        heads: usize,
        /// CTAs that share the channels of a head.
        parts: usize,
    },
    /// This many in x and y, whatever the rows.
    Fixed([usize; 2]),
    /// This many in x for every `tokens` rows.
    Tiles {
        /// CTAs that cover the output channels.
        channels: usize,
        /// Rows of a CTA.
        tokens: usize,
    },
    /// One in x for every tile, but no more than run at a time: each takes one tile after another.
    Persistent {
        /// Clusters that cover the output channels.
        channels: usize,
        /// Rows of a tile.
        tokens: usize,
        /// CTAs of a cluster.
        cluster: usize,
        /// The most CTAs.
        ctas: usize,
    },
}

impl Grid {
    /// The CTAs in x, y and z of a launch on `rows` rows behind `past` positions; rows are at least one.
    pub fn ctas(self, rows: usize, past: usize) -> [u32; 3] {
        let [x, y, z] = match self {
            Grid::Rows => [rows, 1, 1],
            Grid::RowParts(parts) => [rows, parts, 1],
            Grid::Elements { cols, per_cta } => [(rows * cols).div_ceil(per_cta), 1, 1],
            Grid::Queries { tile, heads, cluster } => [rows.div_ceil(tile) * cluster, heads / cluster, 1],
            Grid::Splits(of) => [of.kv_heads, rows, of.split(&vec![past + 1; rows]).parts],
            Grid::Tiles64 { heads, parts } => [past.div_ceil(TILE), heads, parts],
            Grid::Fixed([x, y]) => [x, y, 1],
            Grid::Tiles { channels, tokens } => [channels, rows.div_ceil(tokens), 1],
            Grid::Persistent { channels, tokens, cluster, ctas } => {
                let clusters = (channels * rows.div_ceil(tokens)).min(ctas / cluster).max(1);
                [clusters * cluster, 1, 1]
            }
        };
        [x as u32, y as u32, z as u32]
    }
}

/// Why there is no unit for these sizes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

impl Unit {
    /// The self-contained text that NVRTC compiles.
    pub fn source(&self) -> Result<String, IncludeError> {
        resolve(&format!("{}.cu", self.name), &self.text)
    }

    /// The launch on `rows` rows, at least one, behind `past` positions.
    pub fn launch(&self, rows: usize, past: usize) -> LaunchShape {
        let Cta { threads, cluster, dynamic_shared } = self.cta;
        LaunchShape {
            grid: self.grid.ctas(rows, past),
            block: [threads as u32, 1, 1],
            cluster: [cluster as u32, 1, 1],
            dynamic_shared: dynamic_shared as u32,
        }
    }
}

/// What a unit's text is made of.
pub(super) struct Parts<'a> {
    pub name: &'a str,
    /// The building block, without folder and ending; also its namespace.
    pub kernel: &'a str,
    /// Names that the template arguments use: `using` lines, and the body of an element-wise expression.
    pub names: &'a [String],
    pub arguments: &'a str,
    pub cta: Cta,
}

/// The text of a unit whose parameters are `P`.
pub(super) fn text<P: Params>(parts: &Parts<'_>) -> String {
    let Parts { name, kernel, names, arguments, cta: Cta { threads, cluster, .. } } = parts;
    let cluster = if *cluster > 1 { format!("__cluster_dims__({cluster}, 1, 1) ") } else { String::new() };
    let names: String = names.iter().map(|line| format!("{line}\n")).collect();
    format!(
        "#include \"kernel/{kernel}.cuh\"\n\nnamespace fireq {{\n\nusing Params = {kernel}::Params;\n{names}{}\n\
         extern \"C\" __global__ void {cluster}__launch_bounds__({threads}) {name}(const __grid_constant__ Params p) {{\n    \
         {kernel}::run<{arguments}>(p);\n}}\n\n}}  // namespace fireq\n",
        layout::<P>("Params"),
    )
}

/// A product's tile as units name it, and the assertion that the host sizes launches as the device does.
pub(super) fn tile(of: &str, cta: Cta) -> Vec<String> {
    vec![
        format!("using Tile = {of};"),
        format!(
            "static_assert(Tile::THREADS == {} && Tile::SHARED_BYTES == {},\n              \
             \"the host sizes launches as the device does\");",
            cta.threads, cta.dynamic_shared
        ),
    ]
}

/// The assertion that the host's structure is the device's, which goes by this name in a unit.
pub(super) fn layout<P: Params>(name: &str) -> String {
    let offsets = P::FIELDS.iter().map(|(field, at)| format!("FIREQ_OFFSET({name}, {field}) == {at}"));
    let facts: Vec<String> =
        std::iter::once(format!("sizeof({name}) == {}", P::SIZE)).chain(offsets).collect();
    let lines: Vec<String> = facts.chunks(3).map(|facts| facts.join(" && ")).collect();
    format!(
        "static_assert({},\n              \"the host lays parameters out as the device does\");\n",
        lines.join(" &&\n              ")
    )
}

/// The name of a float format in C++.
pub(super) fn float_name(dtype: DType) -> Result<&'static str, Unsupported> {
    match dtype {
        DType::F32 => Ok("float"),
        DType::BF16 => Ok("bf16"),
        DType::F16 => Ok("f16"),
        other => Err(Unsupported(format!("{other} is no float format"))),
    }
}

/// The largest of `sizes` that divides `cols`: chunks whose addresses are aligned in every row.
pub(super) fn chunk(cols: usize, sizes: &[usize]) -> usize {
    sizes.iter().copied().find(|size| cols.is_multiple_of(*size)).unwrap_or(1)
}

/// What a chunk means for memory accesses, for reasons.
pub(super) fn access(bytes: usize) -> String {
    if bytes >= 16 {
        "16-byte loads".into()
    } else {
        format!("{bytes}-byte loads, as rows allow no wider ones")
    }
}
