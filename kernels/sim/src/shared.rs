//! Shared memory of a CTA, with who wrote and read each byte last.
//!
//! An access is a race where the last conflicting access is not in the past of the accessing warp (vector clocks, at
//! warp granularity). Asynchronous operations are agents of their own: what they touch is stamped when they are
//! issued, and marked as in flight until they complete.

use std::collections::BTreeMap;

use crate::clock::{Knowledge, Stamp};
use crate::fault::FaultKind;
use crate::mbarrier::Barrier;
use crate::readers::{NEVER, Readers};

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
    marks: Vec<Marks>,
    readers: Readers,
    pub barriers: BTreeMap<u64, Barrier>,
}

/// Bytes that have their marks in common while they are used together.
const CHUNK: usize = 16;

#[derive(Debug, Clone)]
enum Marks {
    Alike(Cell),
    Each(Box<[Cell; CHUNK]>),
}

/// Marks of one byte, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    write: Stamp,
    read: Stamp,
    /// Operations in flight that write it, and that read it.
    writing: u8,
    reading: u8,
    flags: u8,
}

const WRITTEN: u8 = 1;
const BY_ASYNC: u8 = 2;
const BARRIER: u8 = 4;
const ATOMIC: u8 = 8;

impl Shared {
    pub fn new(bytes: usize) -> Self {
        let cell = Cell { write: NEVER, read: NEVER, writing: 0, reading: 0, flags: 0 };
        let marks = vec![Marks::Alike(cell); bytes.div_ceil(CHUNK)];
        Self { data: vec![0; bytes], marks, readers: Readers::default(), barriers: BTreeMap::new() }
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
        let at = self.note_read(offset, bytes, who, 0)?;
        Ok(&self.data[at..at + bytes])
    }

    /// Checks and marks a read by an operation that is in flight until [`Shared::mark`] takes that away.
    pub fn start_read(&mut self, offset: u64, bytes: usize, who: &Agent) -> Result<(), FaultKind> {
        self.note_read(offset, bytes, who, 1).map(|_| ())
    }

    fn note_read(&mut self, offset: u64, bytes: usize, who: &Agent, starts: u8) -> Result<usize, FaultKind> {
        let at = self.range(offset, bytes, who.access)?;
        self.each(at, bytes, |cell, readers, (i, count)| {
            check_read(i, *cell, who)?;
            check_write(i, *cell, who)?;
            readers.mark(&mut cell.read, count, who);
            cell.reading = cell.reading.saturating_add(starts);
            Ok(())
        })?;
        Ok(at)
    }

    /// Checks and marks a write; the caller stores the bytes.
    pub fn write(&mut self, offset: u64, bytes: usize, who: &Agent) -> Result<&mut [u8], FaultKind> {
        let at = self.range(offset, bytes, who.access)?;
        let flags = WRITTEN | if who.asynchronous { BY_ASYNC } else { 0 };
        self.each(at, bytes, |cell, readers, (i, count)| {
            if cell.flags & BARRIER != 0 {
                return Err(barrier_touched(i));
            }
            if cell.writing > 0 || cell.reading > 0 {
                let doing = if cell.writing > 0 { "writes" } else { "reads" };
                return Err(FaultKind::InFlight { offset: i as u64, access: who.access, doing });
            }
            if cell.flags & WRITTEN != 0 {
                check_write(i, *cell, who)?;
            }
            readers.check(cell.read, i, who)?;
            readers.forget(&mut cell.read, count);
            *cell = Cell { write: who.stamp, flags, ..*cell };
            Ok(())
        })?;
        Ok(&mut self.data[at..at + bytes])
    }

    /// Atomics are ordered among themselves: the mark of an atomic write is one that other atomics do not race with.
    pub fn read_atomic(&mut self, offset: u64, into: &mut [u8], who: &Agent) -> Result<(), FaultKind> {
        let at = self.range(offset, into.len(), who.access)?;
        self.each(at, into.len(), |cell, _, (i, _)| {
            check_read(i, *cell, who)?;
            if cell.flags & ATOMIC == 0 { check_write(i, *cell, who) } else { Ok(()) }
        })?;
        into.copy_from_slice(&self.data[at..at + into.len()]);
        Ok(())
    }

    /// The write that belongs to `read_atomic`.
    pub fn write_atomic(&mut self, offset: u64, bytes: &[u8], who: &Agent) -> Result<(), FaultKind> {
        let at = self.range(offset, bytes.len(), who.access)?;
        self.each(at, bytes.len(), |cell, readers, (i, count)| {
            readers.check(cell.read, i, who)?;
            readers.forget(&mut cell.read, count);
            *cell = Cell { write: who.stamp, flags: WRITTEN | ATOMIC, ..*cell };
            Ok(())
        })?;
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Marks a range as used by an operation in flight, or takes the mark away.
    pub fn mark(&mut self, offset: u64, bytes: usize, writes: bool, starts: bool) {
        self.all(offset as usize, bytes, |cell| {
            let count = if writes { &mut cell.writing } else { &mut cell.reading };
            *count = if starts { count.saturating_add(1) } else { count.saturating_sub(1) };
        });
    }

    /// Makes eight bytes a barrier object, or plain memory again.
    pub fn mark_barrier(&mut self, offset: u64, exists: bool) {
        self.all(offset as usize, 8, |cell| cell.flags = if exists { BARRIER } else { 0 });
    }

    /// Whether the initialisation of the barrier object is in the past of who uses it.
    pub fn check_barrier(&self, offset: u64, who: &Agent) -> Result<(), FaultKind> {
        let at = self.range(offset, 8, who.access)?;
        let cell = self.marks[at / CHUNK].of(at % CHUNK);
        if cell.flags & BARRIER == 0
            || cell.write.agent == who.stamp.agent
            || who.knowledge.seen.knows(cell.write)
        {
            return Ok(());
        }
        Err(race(at, who, "the initialisation", cell.write.agent))
    }

    /// Whether an operation in flight still writes (or reads) the memory.
    pub fn in_flight(&self) -> Option<&'static str> {
        let mut cells = self.marks.iter().flat_map(Marks::cells);
        let writing = cells.clone().any(|c| c.writing > 0).then_some("a write");
        writing.or_else(|| cells.any(|c| c.reading > 0).then_some("a read"))
    }

    /// Applies `f` to the marks of a range, each with its first byte and how many bytes have it.
    fn each(
        &mut self,
        at: usize,
        bytes: usize,
        mut f: impl FnMut(&mut Cell, &mut Readers, (usize, u32)) -> Result<(), FaultKind>,
    ) -> Result<(), FaultKind> {
        let end = at + bytes;
        for chunk in at / CHUNK..end.div_ceil(CHUNK) {
            let range = at.max(chunk * CHUNK)..end.min((chunk + 1) * CHUNK);
            let whole = range.len() == CHUNK;
            let marks = &mut self.marks[chunk];
            if let (Marks::Alike(cell), true) = (&mut *marks, whole) {
                f(cell, &mut self.readers, (range.start, CHUNK as u32))?;
                continue;
            }
            let cells = marks.part();
            for i in range {
                f(&mut cells[i % CHUNK], &mut self.readers, (i, 1))?;
            }
            if whole && cells.iter().all(|cell| *cell == cells[0]) {
                *marks = Marks::Alike(cells[0]);
            }
        }
        Ok(())
    }

    /// Applies `f` to the marks of a range.
    fn all(&mut self, at: usize, bytes: usize, f: impl Fn(&mut Cell)) {
        let done = self.each(at, bytes, |cell, _, _| {
            f(cell);
            Ok(())
        });
        debug_assert!(done.is_ok());
    }
}

impl Marks {
    /// One for all bytes, or one for each.
    fn cells(&self) -> &[Cell] {
        match self {
            Self::Alike(cell) => std::slice::from_ref(cell),
            Self::Each(cells) => &cells[..],
        }
    }

    /// Those of a byte.
    fn of(&self, byte: usize) -> Cell {
        match self {
            Self::Alike(cell) => *cell,
            Self::Each(cells) => cells[byte],
        }
    }

    /// One for each byte.
    fn part(&mut self) -> &mut [Cell; CHUNK] {
        if let Self::Alike(cell) = self {
            *self = Self::Each(Box::new([*cell; CHUNK]));
        }
        let Self::Each(cells) = self else { unreachable!() };
        cells
    }
}

/// What is read has been written, and nothing in flight writes it.
fn check_read(i: usize, cell: Cell, who: &Agent) -> Result<(), FaultKind> {
    if cell.flags & (WRITTEN | BARRIER) == WRITTEN && cell.writing == 0 {
        return Ok(());
    }
    Err(refuse_read(i, cell, who))
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

pub(crate) fn race(i: usize, who: &Agent, what: &str, agent: u16) -> FaultKind {
    let warps = who.knowledge.warps;
    let agent = agent as usize;
    let other = if agent < warps {
        format!("{what} of warp {agent} of the cluster")
    } else if agent < 2 * warps {
        format!("{what} of an asynchronous operation of warp {} of the cluster", agent - warps)
    } else {
        format!("{what} of a copy whose barrier it has not waited for")
    };
    FaultKind::Race { offset: i as u64, access: who.access, other }
}
