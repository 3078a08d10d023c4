//! What one lane reads and writes.

use super::Cta;
use super::access::Target;
use crate::fault::FaultKind;
use crate::in_flight::Touch;
use crate::memory::{Memory, Written};
use crate::program::LANES;
use crate::shared::Agent;
use crate::stats::Stats;

/// What one lane touches while it accesses memory.
pub(super) struct Lane<'a> {
    pub memory: &'a mut Memory,
    pub ctas: &'a mut [Cta],
    pub parameters: &'a [u8],
    pub stats: &'a mut Stats,
    pub agent: Agent<'a>,
    pub local: &'a mut Vec<u8>,
    pub local_written: &'a mut Written,
    /// Lanes that have waited for earlier launches.
    pub waited: u32,
    /// Whether the access needs memory that nobody writes while the kernel runs.
    pub constant: bool,
}

impl Lane<'_> {
    pub fn fetch(&mut self, target: Target, lane: usize, into: &mut [u8]) -> Result<(), FaultKind> {
        let bytes = into.len();
        match target {
            Target::Global(address) => {
                self.check_order(address, lane, bytes, false)?;
                self.stats.global_read += bytes as u64;
                into.copy_from_slice(self.memory.read(address, bytes)?);
            }
            Target::Shared { cta, offset } => {
                self.stats.shared_read += bytes as u64;
                into.copy_from_slice(self.ctas[cta].shared.read(offset, bytes, &self.agent)?);
            }
            Target::Local(offset) => {
                let at = self.local(offset, lane, bytes)?;
                if let Some(missing) = self.local_written.first_missing(at, bytes) {
                    let address = offset + (missing - at) as u64;
                    return Err(FaultKind::Uninitialised { what: "local memory".into(), address });
                }
                into.copy_from_slice(&self.local[at..at + bytes]);
            }
            Target::Parameter(offset) => {
                let found = self.parameters.get(offset as usize..).and_then(|p| p.get(..bytes));
                let nearest = format!("the parameters have {} bytes", self.parameters.len());
                let missing =
                    FaultKind::OutOfBounds { what: "load", address: offset, bytes: bytes as u64, nearest };
                into.copy_from_slice(found.ok_or(missing)?);
            }
        }
        Ok(())
    }

    pub fn put(&mut self, target: Target, lane: usize, bytes: &[u8]) -> Result<(), FaultKind> {
        match target {
            Target::Global(address) => {
                self.check_order(address, lane, bytes.len(), true)?;
                self.stats.global_written += bytes.len() as u64;
                self.memory.store(address, bytes)?;
            }
            Target::Shared { cta, offset } => {
                self.stats.shared_written += bytes.len() as u64;
                self.ctas[cta].shared.write(offset, bytes.len(), &self.agent)?.copy_from_slice(bytes);
            }
            Target::Local(offset) => {
                let at = self.local(offset, lane, bytes.len())?;
                self.local[at..at + bytes.len()].copy_from_slice(bytes);
                self.local_written.set(at, bytes.len());
            }
            Target::Parameter(_) => return Err(FaultKind::ReadOnly("parameters".into())),
        }
        Ok(())
    }

    pub fn fetch_atomic(&mut self, target: Target, lane: usize, into: &mut [u8]) -> Result<(), FaultKind> {
        if let Target::Shared { cta, offset } = target {
            self.stats.shared_read += into.len() as u64;
            self.ctas[cta].shared.read_atomic(offset, into, &self.agent)
        } else {
            self.fetch(target, lane, into)
        }
    }

    pub fn put_atomic(&mut self, target: Target, lane: usize, bytes: &[u8]) -> Result<(), FaultKind> {
        if let Target::Shared { cta, offset } = target {
            self.stats.shared_written += bytes.len() as u64;
            self.ctas[cta].shared.write_atomic(offset, bytes, &self.agent)
        } else {
            self.put(target, lane, bytes)
        }
    }

    /// Whether an access of global memory is ordered behind earlier launches.
    fn check_order(&self, address: u64, lane: usize, bytes: usize, writes: bool) -> Result<(), FaultKind> {
        let waited = self.waited >> lane & 1 == 1;
        let touch = Touch { address, bytes, writes, waited, access: self.agent.access };
        if self.constant {
            self.memory.check_constant(&touch)?;
        }
        self.memory.check_order(&touch)
    }

    /// Where a lane's local memory has these bytes.
    fn local(&mut self, offset: u64, lane: usize, bytes: usize) -> Result<usize, FaultKind> {
        self.stats.local += bytes as u64;
        let each = self.local.len() / LANES;
        if (offset as usize).checked_add(bytes).is_some_and(|end| end <= each) {
            return Ok(lane * each + offset as usize);
        }
        let nearest = format!("each lane has {each} bytes of local memory");
        Err(FaultKind::OutOfBounds { what: "local access", address: offset, bytes: bytes as u64, nearest })
    }
}
