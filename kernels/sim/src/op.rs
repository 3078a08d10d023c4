//! What decoded instructions do.

pub(crate) use crate::operand::{Access, Address, Element, MatrixA, Reduction, Shuffle, Space, Vote};
use crate::program::{Lanes, Reg};

/// Operations of a memory barrier object in shared memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mbarrier {
    Init {
        count: Reg,
    },
    Invalidate,
    Arrive {
        state: Option<Reg>,
        count: Reg,
        expect: Option<Reg>,
        drop: bool,
    },
    ExpectTx {
        bytes: Reg,
    },
    CompleteTx {
        bytes: Reg,
    },
    /// `parity` tells whether `phase` is a parity or a state that `arrive` returned.
    Wait {
        done: Reg,
        phase: Reg,
        parity: bool,
    },
    /// Arrives when the thread's earlier `cp.async` are done.
    ArriveOnCopies {
        increments: bool,
    },
}

/// `wgmma.mma_async` of 64 × n × (32 bytes).
#[derive(Debug)]
pub(crate) struct Wgmma {
    pub n: usize,
    pub element: [Element; 2],
    pub a: MatrixA,
    pub b: Reg,
    pub d: Box<[Reg]>,
    /// Predicate: whether the accumulator's old value counts.
    pub scale_d: Reg,
    pub negate: [bool; 2],
    pub transpose: [bool; 2],
}

/// `cp.async.bulk` and its tensor form.
#[derive(Debug)]
pub(crate) enum Bulk {
    /// Global to shared memory of the CTA, of the cluster, or of all CTAs of a mask.
    Load {
        to: Address,
        from: Reg,
        bytes: Reg,
        barrier: Address,
        mask: Option<Reg>,
    },
    Store {
        to: Reg,
        from: Address,
        bytes: Reg,
    },
    /// Shared memory of this CTA to that of another.
    Send {
        to: Address,
        from: Address,
        bytes: Reg,
        barrier: Address,
    },
    TensorLoad {
        to: Address,
        map: Reg,
        at: Box<[Reg]>,
        barrier: Address,
        mask: Option<Reg>,
    },
    TensorStore {
        map: Reg,
        at: Box<[Reg]>,
        from: Address,
    },
}

/// New value of an atomic operation from the old one and up to two operands.
pub(crate) type Update = fn(u64, u64, u64) -> u64;

#[derive(Debug)]
pub(crate) enum Op {
    /// `copies` marks moves, which may pass on an accumulator that is still in flight.
    Lanes {
        f: Lanes,
        d: Reg,
        s: [Reg; 4],
        copies: bool,
    },
    Branch {
        target: u32,
        rejoin: u32,
    },
    BranchTable {
        index: Reg,
        targets: Box<[u32]>,
        rejoin: u32,
    },
    Exit,
    Trap,
    Nop,
    /// Lets other warps run.
    Yield,
    Clock {
        d: Reg,
    },
    /// `sign` is the width in bits of a signed element and of its register; `constant` marks `.nc`.
    Load {
        at: Access,
        d: [Reg; 4],
        sign: Option<(u32, u32)>,
        constant: bool,
    },
    Store {
        at: Access,
        s: [Reg; 4],
    },
    Atomic {
        at: Access,
        f: Update,
        d: Option<Reg>,
        s: [Reg; 2],
    },
    Shuffle {
        mode: Shuffle,
        d: Reg,
        p: Reg,
        s: [Reg; 3],
        mask: Reg,
    },
    Vote {
        mode: Vote,
        d: Reg,
        p: Reg,
        mask: Reg,
    },
    Match {
        all: Option<Reg>,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    Redux {
        f: fn(u64, u64) -> u64,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    Elect {
        d: Reg,
        p: Reg,
        mask: Reg,
    },
    WarpSync {
        mask: Reg,
    },
    Barrier {
        id: Reg,
        count: Option<Reg>,
        waits: bool,
        reduce: Option<(Reduction, Reg, Reg)>,
    },
    /// Waits for earlier launches.
    GridWait,
    ClusterArrive,
    ClusterWait,
    /// Address in the shared memory of the CTA of a rank; generic addresses stay generic.
    MapRank {
        d: Reg,
        a: Reg,
        rank: Reg,
        generic: bool,
    },
    ProxyFence,
    /// `fence.mbarrier_init`.
    BarrierFence,
    Mbarrier {
        at: Address,
        op: Mbarrier,
    },
    /// `cp.async` of `bytes` bytes, of which `from_bytes` are read and the rest is zero.
    Copy {
        to: Address,
        from: Address,
        bytes: u32,
        from_bytes: Option<Reg>,
    },
    CopyCommit,
    CopyWait {
        pending: u32,
    },
    Bulk(Box<Bulk>),
    BulkCommit,
    BulkWait {
        pending: u32,
    },
    LoadMatrix {
        at: Address,
        d: Box<[Reg]>,
        transpose: bool,
    },
    StoreMatrix {
        at: Address,
        s: Box<[Reg]>,
        transpose: bool,
    },
    Mma {
        element: [Element; 2],
        k: usize,
        d: [Reg; 4],
        a: Box<[Reg]>,
        b: Box<[Reg]>,
        c: [Reg; 4],
    },
    Wgmma(Box<Wgmma>),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        pending: u32,
    },
}
