//! Operands and modes of decoded instructions.

use crate::program::Reg;

/// State spaces; every address is 64 bits, shared ones are 32 bits with the CTA's rank in bits 24 and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Constant,
    Parameter,
    Local,
    /// `shared` and `shared::cta`.
    Shared,
    /// `shared::cluster`.
    Cluster,
}

/// Where an instruction reads or writes memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub space: Space,
    pub address: Reg,
    pub offset: i64,
    /// Bytes of one element.
    pub width: u32,
    /// Elements of the vector.
    pub count: u32,
}

/// The address of an object in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub space: Space,
    pub row: Reg,
    pub offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What a barrier that reduces returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    And,
    Or,
    Count,
}

/// Element types of tensor-core operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
    E4m3,
    E5m2,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::E4m3 | Self::E5m2 => 1,
        }
    }
}

/// Operand A of `wgmma`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MatrixA {
    Registers([Reg; 4]),
    Descriptor(Reg),
}
