//! Decoded kernels: every operand is a row of the register file, every opcode a variant.

use crate::ptx::{self, ParseError};

/// Threads of a warp.
pub(crate) const LANES: usize = 32;

/// A register of a warp: one value per lane, zero-extended from the width of its type.
pub(crate) type Row = [u64; LANES];

/// Index of a row; immediates, addresses of variables and special registers have rows of their own.
pub(crate) type Reg = u32;

/// A function of up to four rows without side effects.
pub(crate) type Lanes = fn([&Row; 4]) -> Row;

/// A PTX module: variables and kernels, decoded.
#[derive(Debug, Default)]
pub struct Module {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) files: Vec<String>,
}

impl Module {
    /// Parses PTX text. Errors name the line; an instruction, modifier or directive that the simulator does not
    /// know is an error.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        ptx::parse(text)
    }

    /// Names of the kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|k| k.name.as_str())
    }

    /// Bytes of parameters, and of shared and local memory that a kernel declares.
    pub fn sizes(&self, kernel: &str) -> Option<[usize; 3]> {
        self.kernel(kernel).map(|k| [k.parameter_bytes, k.shared_bytes, k.local_bytes])
    }

    pub(crate) fn variable(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|v| v.name == name)
    }

    pub(crate) fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }
}

/// Where a variable of a module lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Global,
    Constant,
    Shared,
    /// `extern .shared name[]`: where the launch's dynamic shared memory starts.
    Dynamic,
}

#[derive(Debug)]
pub(crate) struct Variable {
    pub name: String,
    pub align: usize,
    pub bytes: usize,
    pub init: Vec<u8>,
    pub place: Place,
}

/// A kernel, ready to run.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub name: String,
    pub line: u32,
    pub code: Vec<Inst>,
    /// Rows of the register file, constants included.
    pub rows: u32,
    /// Rows that hold something before the first instruction.
    pub constants: Vec<(Reg, Constant)>,
    pub parameter_bytes: usize,
    pub shared_bytes: usize,
    pub dynamic_align: usize,
    pub local_bytes: usize,
    pub max_threads: Option<u32>,
    pub required_block: Option<[u32; 3]>,
    pub required_cluster: Option<[u32; 3]>,
    pub locations: Vec<Location>,
    /// Largest file number that a location names.
    pub files_used: usize,
    /// Whether register hazards of `wgmma` have to be tracked.
    pub matrix_async: bool,
}

/// A position in the CUDA source: file number and line, and where the innermost inlined call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Location {
    pub at: (u32, u32),
    pub outer: Option<(u32, u32)>,
}

/// What a constant row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Constant {
    Bits(u64),
    Special(Special),
    /// Offset into the CTA's shared memory.
    Shared(u64),
    /// Offset into the dynamic shared memory.
    Dynamic(u64),
    Parameter(u64),
    Local(u64),
    /// Variable of the module, offset.
    Variable(usize, u64),
}

/// Special registers that do not change while a warp runs; the index is the dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    ClusterId(usize),
    ClusterCount(usize),
    ClusterCtaid(usize),
    ClusterNctaid(usize),
    ClusterRank,
    ClusterSize,
    LaneId,
    WarpId,
    WarpCount,
    LaneMask(LaneMask),
    DynamicSharedBytes,
    TotalSharedBytes,
    SmId,
    Zero,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneMask {
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A decoded instruction; one PTX instruction may take several.
#[derive(Debug)]
pub(crate) struct Inst {
    pub op: Op,
    /// Predicate row and whether it is negated.
    pub guard: Option<(Reg, bool)>,
    /// Line of the PTX text.
    pub line: u32,
    /// Index into the kernel's locations.
    pub location: u32,
    /// The first of the instructions that one PTX instruction became.
    pub first: bool,
    /// Rows that it reads, and rows that it writes.
    pub uses: Box<[Reg]>,
    pub defs: Box<[Reg]>,
}

pub(crate) use crate::op::Op;
