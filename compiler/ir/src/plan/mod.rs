//! The plan: ordered kernel launches over buffers, what passes hand to code generators and what the runtime executes.

mod codes;
mod lower;
mod pack;
pub mod records;
mod storage;
mod text;
mod verify;

pub use lower::{ARENA_ALIGN, LowerError, Lowered, arena_bytes, lower, lower_fused, output_name};
pub(crate) use pack::unpack_plain;
pub use pack::{PackedPart, constant_data, pack, pack_rows, pack_tensor, pieces, unpack};
pub use storage::{BLOCK, LINE, Part, Storage, parts, pitch};
pub use text::{launch_text, parse_plan, print_plan};
pub use verify::{PlanError, verify_plan};

use std::sync::Arc;

use crate::{DType, Dim, Fit, Format, Op, Type};

/// Index into [`Plan::buffers`].
pub type BufferId = usize;

/// Where the bytes of a buffer are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Given by the caller.
    Input(Arc<str>),
    /// Returned to the caller.
    Output(Arc<str>),
    /// Read-only tensors of `weights.safetensors`, one for each part.
    Weight(Arc<str>),
    /// A KV cache: rows for the whole context, filled up to `P` before a step and `P+T` after it.
    Cache(Arc<str>),
    /// Scratch: `offset` counts bytes per row; a part starts at `offset · rows` for a step of at most `rows` tokens.
    Arena {
        /// Bytes per token before this buffer, a multiple of 64.
        offset: usize,
    },
}

/// A value with a place. A quantized value has several [`parts`], laid one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Type, with symbols `T` (tokens of this step), `P` (tokens before it) and `L` (rows whose logits are wanted).
    pub ty: Type,
    /// Where it is.
    pub place: Place,
    /// How the target stores it.
    pub storage: Storage,
}

impl Buffer {
    /// Bytes of each part, as they are stored; none where there is no fixed number of rows.
    pub fn stored(&self) -> Vec<usize> {
        let list = self.ty.shape.rows().fixed().zip(parts(&self.ty, self.storage));
        let bytes = |(rows, list): (usize, Vec<Part>)| {
            list.iter().filter_map(|part| Some(part.stored(rows)?.1)).collect()
        };
        list.map(bytes).unwrap_or_default()
    }
}

/// What a launch computes: an [`crate::Op`] without sources, on buffers.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Kernel {
    /// Rows of a table, as f32.
    Gather,
    /// RMS norm over runs of the weight's length.
    RmsNorm { eps: f32 },
    /// `x · weightᵀ` with the scales of both in the epilogue.
    Linear,
    /// Adds a vector to each row.
    Bias,
    /// Cosines and sines for rope.
    RopeTable,
    /// Rotates halves of each head.
    Rope,
    /// Copies `T` rows behind the `P` rows of a cache; the output is the cache.
    KvAppend,
    /// Causal attention of `T` queries over `P+T` keys.
    Attention { heads: usize, kv_heads: usize, scale: f32, p: DType },
    /// `x / (1 + exp(−x))`.
    Silu,
    /// Element-wise product.
    Mul,
    /// Element-wise sum.
    Add,
    /// Per-channel product.
    Scale,
    /// To codes and scales.
    Quantize { to: Format, fit: Fit },
    /// From codes and scales.
    Dequantize,
    /// Channels of each row.
    Slice { start: usize, size: usize },
    /// RMS norm, quantized.
    NormQuantize { eps: f32, to: Format },
    /// A linear, and a vector added to each row.
    LinearBias,
    /// A linear, added to a residual.
    LinearAdd,
    /// A linear, and the product of SiLU of its first half with its second, quantized.
    LinearSwiglu { to: Format },
    /// Rope, scaled where there is a scale, and quantized.
    RopeQuantize { to: Format },
    /// Rope, scaled where there is a scale, and put behind the rows of a cache.
    RopeAppend { fit: Fit },
    /// Quantized, and put behind the rows of a cache.
    QuantizeAppend { fit: Fit },
}

impl Kernel {
    /// The kernel of an operation; `None` for sources, and for what only constants go through.
    pub fn from_op(op: &Op) -> Option<Self> {
        Some(match op.clone() {
            Op::Input { .. }
            | Op::Const { .. }
            | Op::Cache { .. }
            | Op::ScaleRows
            | Op::Fence
            | Op::Rescale { .. }
            | Op::Concat
            | Op::Transpose
            | Op::Reshape { .. } => return None,
            Op::Gather => Kernel::Gather,
            Op::RmsNorm { eps } => Kernel::RmsNorm { eps },
            Op::Linear => Kernel::Linear,
            Op::Bias => Kernel::Bias,
            Op::RopeTable => Kernel::RopeTable,
            Op::Rope => Kernel::Rope,
            Op::KvAppend => Kernel::KvAppend,
            Op::Attention { heads, kv_heads, scale, p } => Kernel::Attention { heads, kv_heads, scale, p },
            Op::Silu => Kernel::Silu,
            Op::Mul => Kernel::Mul,
            Op::Add => Kernel::Add,
            Op::Scale => Kernel::Scale,
            Op::Quantize { to, fit } => Kernel::Quantize { to, fit },
            Op::Dequantize => Kernel::Dequantize,
            Op::Slice { start, size } => Kernel::Slice { start, size },
            Op::NormQuantize { eps, to } => Kernel::NormQuantize { eps, to },
            Op::LinearBias => Kernel::LinearBias,
            Op::LinearAdd => Kernel::LinearAdd,
            Op::LinearSwiglu { to } => Kernel::LinearSwiglu { to },
            Op::RopeQuantize { to } => Kernel::RopeQuantize { to },
            Op::RopeAppend { fit } => Kernel::RopeAppend { fit },
            Op::QuantizeAppend { fit } => Kernel::QuantizeAppend { fit },
        })
    }

    /// The operation that a kernel computes: names, attributes and inference are shared with it.
    pub fn to_op(&self) -> Op {
        match self.clone() {
            Kernel::Gather => Op::Gather,
            Kernel::RmsNorm { eps } => Op::RmsNorm { eps },
            Kernel::Linear => Op::Linear,
            Kernel::Bias => Op::Bias,
            Kernel::RopeTable => Op::RopeTable,
            Kernel::Rope => Op::Rope,
            Kernel::KvAppend => Op::KvAppend,
            Kernel::Attention { heads, kv_heads, scale, p } => Op::Attention { heads, kv_heads, scale, p },
            Kernel::Silu => Op::Silu,
            Kernel::Mul => Op::Mul,
            Kernel::Add => Op::Add,
            Kernel::Scale => Op::Scale,
            Kernel::Quantize { to, fit } => Op::Quantize { to, fit },
            Kernel::Dequantize => Op::Dequantize,
            Kernel::Slice { start, size } => Op::Slice { start, size },
            Kernel::NormQuantize { eps, to } => Op::NormQuantize { eps, to },
            Kernel::LinearBias => Op::LinearBias,
            Kernel::LinearAdd => Op::LinearAdd,
            Kernel::LinearSwiglu { to } => Op::LinearSwiglu { to },
            Kernel::RopeQuantize { to } => Op::RopeQuantize { to },
            Kernel::RopeAppend { fit } => Op::RopeAppend { fit },
            Kernel::QuantizeAppend { fit } => Op::QuantizeAppend { fit },
        }
    }

    /// True for what writes behind the rows of a cache, which is its output.
    pub fn appends(&self) -> bool {
        matches!(self, Kernel::KvAppend | Kernel::RopeAppend { .. } | Kernel::QuantizeAppend { .. })
    }

    /// The name in text.
    pub fn mnemonic(&self) -> &'static str {
        self.to_op().mnemonic()
    }
}

/// One kernel launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What is computed.
    pub kernel: Kernel,
    /// Name of the compiled function; launches with equal kernel and types share one.
    pub symbol: Arc<str>,
    /// Operands, in the operation's order; without the cache for what appends, since the cache is the output.
    pub inputs: Vec<BufferId>,
    /// Result.
    pub output: BufferId,
}

/// Ordered kernel launches and their buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the model.
    pub name: String,
    /// Buffers, in order of first use.
    pub buffers: Vec<Buffer>,
    /// Launches, in order of execution.
    pub launches: Vec<Launch>,
    /// Bytes of scratch per token of a step.
    pub arena_bytes_per_token: usize,
}

/// What a compiled function is specialized for: the kernel, and the type and storage of each operand and the result.
pub type Signature = (Kernel, Vec<(Type, Storage)>);

/// The sizes of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// `T`: tokens of this step.
    pub tokens: usize,
    /// `P`: tokens before it.
    pub past: usize,
    /// `L`: rows whose logits are wanted.
    pub selected: usize,
}

/// Output rows of a linear that one unit of work computes.
pub const LINEAR_ROWS: usize = 4;

/// Heads of attention that one unit of work computes: at most [`MAX_HEADS`], all with the same keys.
pub fn heads_together(heads: usize, kv_heads: usize) -> usize {
    let same = heads / kv_heads.max(1);
    (1..=MAX_HEADS).rev().find(|n| same.is_multiple_of(*n)).unwrap_or(1)
}

/// The most heads of a unit, for each of which there are scores in the scratch.
pub const MAX_HEADS: usize = 4;

impl Plan {
    /// How codes are stored that have no order of their own on a target: blocked for CPUs, plain for GPUs; plain where there
    /// are none.
    pub fn codes(&self) -> Storage {
        let of_cpus = |storage| matches!(storage, Storage::Blocked32 | Storage::Interleaved);
        let blocked = self.buffers.iter().any(|buffer| of_cpus(buffer.storage));
        if blocked { Storage::Blocked32 } else { Storage::Plain }
    }

    /// The compiled function's types: what makes launches share a symbol.
    pub fn signature(&self, launch: &Launch) -> Signature {
        let types = launch.inputs.iter().chain([&launch.output]);
        (
            launch.kernel.clone(),
            types.map(|b| (self.buffers[*b].ty.clone(), self.buffers[*b].storage)).collect(),
        )
    }

    /// Independent units of work of a launch, the range that threads share: blocks of [`LINEAR_ROWS`] output channels
    /// for linears, [`heads_together`] of a token for attention, rows for all else.
    pub fn units(&self, launch: &Launch, step: Step) -> usize {
        let output = &self.buffers[launch.output].ty;
        let rows = step.rows(&output.shape.rows());
        match &launch.kernel {
            Kernel::Linear => output.shape.cols().fixed().unwrap_or(0).div_ceil(LINEAR_ROWS),
            Kernel::Attention { heads, kv_heads, .. } => rows * heads / heads_together(*heads, *kv_heads),
            kernel if kernel.appends() => step.tokens,
            _ => rows,
        }
    }
}

impl Step {
    /// The number of rows that a dimension means in this step; 0 for symbols a plan does not have. Called for every
    /// launch of every step: allocates nothing.
    pub fn rows(self, dim: &Dim) -> usize {
        let symbol = |name: &str| match name {
            "T" => self.tokens,
            "P" => self.past,
            "L" => self.selected,
            _ => 0,
        };
        match dim {
            Dim::Fixed(n) => *n,
            Dim::Sym(sum) => sum.split('+').map(symbol).sum(),
        }
    }
}
