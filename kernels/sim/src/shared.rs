//! Shared memory of a CTA, with who wrote and read each byte last.
//!
//! An access is a race where the last conflicting access is not in the past of the accessing warp (vector clocks, at
//! warp granularity). Asynchronous operations are agents of their own: what they touch is stamped when they are
//! issued, and marked as in flight until they complete.

use std::collections::BTreeMap;

use crate::clock::{Clock, Knowledge, Stamp};
use crate::fault::FaultKind;
use crate::mbarrier::Barrier;

/// The first bytes belong to the system.
pub(crate) const RESERVED: usize = 1024;

/// Who accesses: its stamp, what it knows, and whether it goes through the asynchronous proxy.
pub(crate) struct Agent<'a> {
    pub stamp: Stamp,
    pub knowledge: &'a Knowledge,
    pub asynchronous: bool,
    /// The access in words.
    pub access: &'static str,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub data: Vec<u8>,
    cells: Vec<Cell>,
    /// Clocks of bytes that several agents have read since the last write.
    readers: Vec<Clock>,
    free: Vec<u32>,
    pub barriers: BTreeMap<u64, Barrier>,
}

/// Marks of one byte.
#[derive(Debug, Clone, Copy)]
struct Cell {
    write: Stamp,
    read: Stamp,
    /// Operations in flight that write it, and that read it.
    writing: u8,
    reading: u8,
    flags: u8,
}

const NOBODY: u16 = u16::MAX;
/// The time of a read stamp of this agent is an index of `readers`.
const SEVERAL: u16 = u16::MAX - 1;
const WRITTEN: u8 = 1;
const BY_ASYNC: u8 = 2;
const BARRIER: u8 = 4;
const ATOMIC: u8 = 8;

impl Shared {
    pub fn new(bytes: usize) -> Self {
        let none = Stamp { agent: NOBODY, time: 0 };
        let cell = Cell { write: none, read: none, writing: 0, reading: 0, flags: 0 };
        let (data, cells) = (vec![0; bytes], vec![cell; bytes]);
        Self { data, cells, readers: vec![], free: vec![], barriers: BTreeMap::new() }
    }

    /// The range, if it lies within the memory.
    pub fn range(&self, offset: u64, bytes: usize, what: &'static str) -> Result<usize, FaultKind> {
        let at = offset as usize;
        if at >= RESERVED && at.checked_add(bytes).is_some_and(|end| end <= self.data.len()) {
            return Ok(at);
        }
        let nearest = format!("shared memory spans {RESERVED:#x}..{:#x}", self.data.len());
        Err(FaultKind::OutOfBounds { what, address: offset, bytes: bytes as u64, nearest })
    }

    /// Checks and marks a read.
    pub fn read(&mut self, offset: u64, bytes: usize, who: &Agent) -> Result<&[u8], FaultKind> {
        let at = self.range(offset, bytes, who.access)?;
        for i in at..at + bytes {
            let cell = self.cells[i];
            if cell.flags & (WRITTEN | BARRIER) != WRITTEN || cell.writing > 0 {
                return Err(refuse_read(i, cell, who));
            }
            check_write(i, cell, who)?;
            self.mark_read(i, who);
        }
        Ok(&self.data[at..at + bytes])
    }

    /// Checks and marks a write; the caller stores the bytes.
    pub fn write(&mut self, offset: u64, bytes: usize, who: &Agent) -> Result<&mut [u8], FaultKind> {
        let at = self.range(offset, bytes, who.access)?;
        for i in at..at + bytes {
            let cell = self.cells[i];
            if cell.flags & BARRIER != 0 {
                return Err(barrier_touched(i));
            }
            if cell.writing > 0 || cell.reading > 0 {
                let doing = if cell.writing > 0 { "writes" } else { "reads" };
                return Err(FaultKind::InFlight { offset: i as u64, access: who.access, doing });
            }
            if cell.flags & WRITTEN != 0 {
                check_write(i, cell, who)?;
            }
            self.check_readers(i, who)?;
            self.forget_readers(i);
            let flags = WRITTEN | if who.asynchronous { BY_ASYNC } else { 0 };
            self.cells[i] = Cell { write: who.stamp, flags, ..self.cells[i] };
        }
        Ok(&mut self.data[at..at + bytes])
    }

    /// Atomics are ordered among themselves: the mark of an atomic write is one that other atomics do not race with.
    pub fn read_atomic(&mut self, offset: u64, into: &mut [u8], who: &Agent) -> Result<(), FaultKind> {
        let at = self.range(offset, into.len(), who.access)?;
        for i in at..at + into.len() {
            let cell = self.cells[i];
            if cell.flags & (WRITTEN | BARRIER) != WRITTEN || cell.writing > 0 {
                return Err(refuse_read(i, cell, who));
            }
            if cell.flags & ATOMIC == 0 {
                check_write(i, cell, who)?;
            }
        }
        into.copy_from_slice(&self.data[at..at + into.len()]);
        Ok(())
    }

    /// The write that belongs to `read_atomic`.
    pub fn write_atomic(&mut self, offset: u64, bytes: &[u8], who: &Agent) -> Result<(), FaultKind> {
        let at = self.range(offset, bytes.len(), who.access)?;
        for i in at..at + bytes.len() {
            self.check_readers(i, who)?;
            self.forget_readers(i);
            self.cells[i] = Cell { write: who.stamp, flags: WRITTEN | ATOMIC, ..self.cells[i] };
        }
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Marks a range as used by an operation in flight, or takes the mark away.
    pub fn mark(&mut self, offset: u64, bytes: usize, writes: bool, starts: bool) {
        for cell in &mut self.cells[offset as usize..offset as usize + bytes] {
            let count = if writes { &mut cell.writing } else { &mut cell.reading };
            *count = if starts { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
    }

    /// Makes eight bytes a barrier object, or plain memory again.
    pub fn mark_barrier(&mut self, offset: u64, exists: bool) {
        for cell in &mut self.cells[offset as usize..offset as usize + 8] {
            cell.flags = if exists { BARRIER } else { 0 };
        }
    }

    /// Whether the initialisation of the barrier object is in the past of who uses it.
    pub fn check_barrier(&self, offset: u64, who: &Agent) -> Result<(), FaultKind> {
        let cell = self.cells[self.range(offset, 8, who.access)?];
        if cell.flags & BARRIER == 0
            || cell.write.agent == who.stamp.agent
            || who.knowledge.seen.knows(cell.write)
        {
            return Ok(());
        }
        Err(race(offset as usize, who, "the initialisation", cell.write.agent))
    }

    /// Whether an operation in flight still writes (or reads) the memory.
    pub fn in_flight(&self) -> Option<&'static str> {
        let writing = self.cells.iter().any(|c| c.writing > 0).then_some("a write");
        writing.or_else(|| self.cells.iter().any(|c| c.reading > 0).then_some("a read"))
    }

    fn mark_read(&mut self, i: usize, who: &Agent) {
        let read = self.cells[i].read;
        if read == who.stamp {
            return;
        }
        if read.agent == SEVERAL {
            self.readers[read.time as usize].raise(who.stamp);
        } else if read.agent == NOBODY || read.agent == who.stamp.agent || who.knowledge.seen.knows(read) {
            self.cells[i].read = who.stamp;
        } else {
            let mut clock = Clock::new(who.knowledge.seen.0.len());
            clock.raise(read);
            clock.raise(who.stamp);
            let index = self.free.pop().unwrap_or(self.readers.len() as u32);
            if index as usize == self.readers.len() {
                self.readers.push(clock);
            } else {
                self.readers[index as usize] = clock;
            }
            self.cells[i].read = Stamp { agent: SEVERAL, time: index };
        }
    }

    fn forget_readers(&mut self, i: usize) {
        let read = self.cells[i].read;
        if read.agent == SEVERAL {
            self.free.push(read.time);
        }
        self.cells[i].read = Stamp { agent: NOBODY, time: 0 };
    }

    fn check_readers(&self, i: usize, who: &Agent) -> Result<(), FaultKind> {
        let read = self.cells[i].read;
        let unseen = match read.agent {
            NOBODY => None,
            SEVERAL => {
                let clock = &self.readers[read.time as usize];
                let pairs = clock.0.iter().zip(&who.knowledge.seen.0);
                pairs.enumerate().find(|(_, (read, seen))| read > seen).map(|(agent, _)| agent as u16)
            }
            _ => (!who.knowledge.seen.knows(read)).then_some(read.agent),
        };
        unseen.map_or(Ok(()), |agent| Err(race(i, who, "a read", agent)))
    }
}

/// The last write has to be in the past, and a generic one has to be fenced for the asynchronous proxy.
fn check_write(i: usize, cell: Cell, who: &Agent) -> Result<(), FaultKind> {
    if !who.asynchronous && cell.write.agent == who.stamp.agent {
        return Ok(());
    }
    if !who.knowledge.seen.knows(cell.write) {
        return Err(race(i, who, "a write", cell.write.agent));
    }
    if who.asynchronous && cell.flags & BY_ASYNC == 0 && !who.knowledge.fenced.knows(cell.write) {
        return Err(FaultKind::MissingProxyFence { offset: i as u64, access: who.access });
    }
    Ok(())
}

fn refuse_read(i: usize, cell: Cell, who: &Agent) -> FaultKind {
    let offset = i as u64;
    if cell.flags & BARRIER != 0 {
        barrier_touched(i)
    } else if cell.writing > 0 {
        FaultKind::InFlight { offset, access: who.access, doing: "writes" }
    } else {
        FaultKind::Uninitialised { what: format!("shared memory ({})", who.access), address: offset }
    }
}

fn barrier_touched(i: usize) -> FaultKind {
    FaultKind::Mbarrier { offset: i as u64, reason: "an ordinary access touches a barrier object".into() }
}

fn race(i: usize, who: &Agent, what: &str, agent: u16) -> FaultKind {
    let warps = who.knowledge.seen.0.len() / 2;
    let agent = agent as usize;
    let other = if agent < warps {
        format!("{what} of warp {agent} of the cluster")
    } else {
        format!("{what} of an asynchronous operation of warp {} of the cluster", agent - warps)
    };
    FaultKind::Race { offset: i as u64, access: who.access, other }
}
