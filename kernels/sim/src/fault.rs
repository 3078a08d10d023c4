//! What can go wrong in a kernel, and where.

use std::fmt;

use thiserror::Error;

/// A kernel's fault with its position.
#[derive(Debug, Clone, Error)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Name of the kernel.
    pub kernel: String,
    /// Position of the instruction; absent where the launch itself is wrong.
    pub position: Option<Box<Position>>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.kind)?;
        self.position.as_ref().map_or(Ok(()), |position| write!(f, " ({position})"))
    }
}

/// Where a warp stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// CTA in the grid.
    pub cta: [u32; 3],
    /// Warp in the CTA.
    pub warp: u32,
    /// Lane, where one lane is to blame.
    pub lane: Option<u32>,
    /// Line of the PTX text; 0 is the end of the kernel.
    pub ptx_line: u32,
    /// File and line of the CUDA source, from `-lineinfo`.
    pub source: Option<(String, u32)>,
    /// File and line of the call that was inlined there.
    pub inlined_at: Option<(String, u32)>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.cta;
        write!(f, "CTA {x},{y},{z} warp {}", self.warp)?;
        if let Some(lane) = self.lane {
            write!(f, " lane {lane}")?;
        }
        write!(f, ", PTX line {}", self.ptx_line)?;
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        if let Some((file, line)) = &self.inlined_at {
            write!(f, ", inlined at {file}:{line}")?;
        }
        Ok(())
    }
}

/// What a warp of a deadlock waits for.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Where the warp stands.
    pub position: Position,
    /// What it waits for, in words.
    pub reason: String,
}

/// Kinds of faults.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// The launch does not fit the kernel.
    #[error("launch: {0}")]
    Launch(String),
    /// An access outside every allocation, or past the end of one.
    #[error("{what} of {bytes} bytes at {address:#x} is out of bounds: {nearest}")]
    OutOfBounds {
        /// The access in words.
        what: &'static str,
        /// Its address.
        address: u64,
        /// Its size.
        bytes: u64,
        /// The allocation beside it, in words.
        nearest: String,
    },
    /// An address that is not a multiple of what the access needs.
    #[error("misaligned {what}: {address:#x} is not a multiple of {align}")]
    Misaligned {
        /// The access in words.
        what: &'static str,
        /// Its address.
        address: u64,
        /// What the address has to be a multiple of.
        align: u64,
    },
    /// A read of bytes that nothing has written.
    #[error("read of uninitialised {what} at {address:#x}")]
    Uninitialised {
        /// The memory in words.
        what: String,
        /// Address of the first such byte.
        address: u64,
    },
    /// A write to constant memory or parameters.
    #[error("write to read-only {0}")]
    ReadOnly(String),
    /// Two accesses to a byte of shared memory of which neither is ordered before the other.
    #[error("race in shared memory at byte {offset:#x}: {access} of this warp and {other}")]
    Race {
        /// Offset in the CTA's shared memory.
        offset: u64,
        /// The later access, in words.
        access: &'static str,
        /// The earlier access, in words.
        other: String,
    },
    /// Shared memory touched while an asynchronous operation still uses it.
    #[error("{access} of shared memory at byte {offset:#x} while an asynchronous operation {doing} it")]
    InFlight {
        /// Offset in the CTA's shared memory.
        offset: u64,
        /// The access in words.
        access: &'static str,
        /// What the operation does.
        doing: &'static str,
    },
    /// A generic write that an asynchronous access follows without `fence.proxy.async`.
    #[error("no fence.proxy.async between a write of shared memory at byte {offset:#x} and {access}")]
    MissingProxyFence {
        /// Offset in the CTA's shared memory.
        offset: u64,
        /// The asynchronous access, in words.
        access: &'static str,
    },
    /// A memory barrier object used against its rules.
    #[error("mbarrier at byte {offset:#x}: {reason}")]
    Mbarrier {
        /// Offset in the CTA's shared memory.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A register that a `wgmma` in flight reads or writes.
    #[error("register of a wgmma in flight is {0} before wgmma.wait_group")]
    AccumulatorInFlight(&'static str),
    /// A register that `wgmma` uses was written after the last `wgmma.fence`.
    #[error("no wgmma.fence between a write of a register and the wgmma that uses it")]
    MissingWgmmaFence,
    /// A CTA ended while asynchronous operations still use its shared memory.
    #[error("the CTA ends while {0} of its shared memory is in flight")]
    UnfinishedTransfer(&'static str),
    /// Memory that an earlier launch may still use, before this thread waited for it.
    #[error(
        "{access} of {address:#x}, which an earlier launch may still {doing}: this thread has not executed griddepcontrol.wait"
    )]
    TooEarly {
        /// The access in words.
        access: &'static str,
        /// Its address.
        address: u64,
        /// What the earlier launch does.
        doing: &'static str,
    },
    /// A load of constant memory from what an earlier launch may write while the kernel runs.
    #[error("ld.global.nc of {address:#x}, which an earlier launch may write while this kernel runs")]
    NotConstant {
        /// Its address.
        address: u64,
    },
    /// A launch that may end before those in front of it.
    #[error("no thread executes griddepcontrol.wait: later launches would not wait for earlier ones")]
    NeverWaits,
    /// No warp can go on.
    #[error("deadlock: {}", .0.iter().map(|w| format!("[{} {}]", w.position, w.reason)).collect::<Vec<_>>().join(" "))]
    Deadlock(Vec<Waiting>),
    /// More instructions than the options allow.
    #[error("more than {0} warp instructions: an endless loop, or too small a budget")]
    Budget(u64),
    /// The kernel executed `trap`.
    #[error("trap")]
    Trap,
    /// Behaviour that the instruction set leaves undefined.
    #[error("undefined behaviour: {0}")]
    Undefined(String),
}

/// A fault whose position is not known yet, except perhaps the lane.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub kind: FaultKind,
    pub lane: Option<u32>,
}

impl From<FaultKind> for Trouble {
    fn from(kind: FaultKind) -> Self {
        Self { kind, lane: None }
    }
}

/// Puts the blame on a lane.
pub(crate) trait AtLane<T> {
    fn at_lane(self, lane: usize) -> Result<T, Trouble>;
}

impl<T> AtLane<T> for Result<T, FaultKind> {
    fn at_lane(self, lane: usize) -> Result<T, Trouble> {
        self.map_err(|kind| Trouble { kind, lane: Some(lane as u32) })
    }
}

pub(crate) fn undefined(reason: impl Into<String>) -> FaultKind {
    FaultKind::Undefined(reason.into())
}
