//! Memory that earlier launches may still use while a launch begins (programmatic dependent launch).
//!
//! A launch that may begin before those in front of it have ended orders itself behind them with `griddepcontrol.wait`. Here
//! launches run one after the other, so that what is too early does not show in results: it is a fault instead. The rule: a
//! thread has executed `griddepcontrol.wait` itself before it reads what earlier launches may still write, or writes what they
//! may still read or write; an asynchronous copy counts as an access of the thread that asks for it. That is stricter than the
//! instruction set, where a barrier behind another thread's wait would do. Two things more:
//!
//! * `ld.global.nc` of what earlier launches write is a fault even behind the wait: such loads need memory that nobody writes
//!   while the kernel runs, and this one runs while it is written.
//! * One thread of the grid waits at least. A launch behind this one waits for the end of this one alone: it is the end of
//!   those in front, too, only if this one does not end before them.

use std::ops::Range;

use crate::fault::FaultKind;

/// Ranges of global memory that launches which may not have ended use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InFlight {
    /// What they write.
    pub written: Vec<Range<u64>>,
    /// What they read.
    pub read: Vec<Range<u64>>,
}

/// An access of a kernel to global memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touch {
    pub address: u64,
    pub bytes: usize,
    pub writes: bool,
    /// Whether the thread has waited for earlier launches.
    pub waited: bool,
    /// The access in words.
    pub access: &'static str,
}

impl InFlight {
    /// Whether the access is ordered behind earlier launches, or touches nothing of theirs.
    pub(crate) fn check(&self, touch: &Touch) -> Result<(), FaultKind> {
        if touch.waited || touch.bytes == 0 {
            return Ok(());
        }
        let doing = if overlaps(&self.written, touch) {
            "write"
        } else if touch.writes && overlaps(&self.read, touch) {
            "read"
        } else {
            return Ok(());
        };
        Err(FaultKind::TooEarly { access: touch.access, address: touch.address, doing })
    }

    /// Whether a load that needs constant memory has it.
    pub(crate) fn check_constant(&self, touch: &Touch) -> Result<(), FaultKind> {
        if overlaps(&self.written, touch) {
            return Err(FaultKind::NotConstant { address: touch.address });
        }
        Ok(())
    }
}

fn overlaps(ranges: &[Range<u64>], touch: &Touch) -> bool {
    let end = touch.address + touch.bytes as u64;
    ranges.iter().any(|range| range.start < end && touch.address < range.end)
}
