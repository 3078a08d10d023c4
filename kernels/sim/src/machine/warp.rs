//! A warp: registers, and the fragments that its lanes form while they diverge.

use std::collections::VecDeque;

use crate::clock::{Knowledge, Stamp};
use crate::memory::Written;
use crate::program::{LANES, Reg, Row};
use crate::tile::Tile;

pub(super) struct Warp {
    /// Index of its CTA among those that run.
    pub cta: usize,
    /// Index in the CTA.
    pub index: u32,
    /// Index in the cluster: its agent.
    pub agent: u16,
    pub rows: Vec<Row>,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes that have waited for earlier launches.
    pub waited: u32,
    pub fragments: Vec<Fragment>,
    joins: Vec<Join>,
    pub knowledge: Knowledge,
    /// Asynchronous operations issued so far.
    pub issued: u32,
    pub local: Vec<u8>,
    pub local_written: Written,
    pub copies: Groups,
    pub bulk: Groups,
    pub matrix: Matrix,
}

/// Lanes that stand at the same instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment {
    pub pc: u32,
    pub mask: u32,
    join: Option<u32>,
    pub wait: Option<Wait>,
    /// Lanes that take part in the instruction that waits for other lanes.
    pub ready: u32,
    /// The machine's progress when it last found nothing to do.
    pub idle: u64,
}

/// Why a fragment cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// For other lanes of the warp.
    Lanes,
    Barrier(usize),
    Cluster,
}

/// Where diverged lanes meet again.
#[derive(Debug)]
struct Join {
    rejoin: u32,
    expected: u32,
    arrived: u32,
    parent: Option<u32>,
    free: bool,
}

/// Groups of asynchronous operations that a warp committed: how many operations of each are pending.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Number of the group that is open.
    pub open: u64,
    /// Stamp of the newest operation of each group not known to be complete.
    pub stamps: VecDeque<(u64, Stamp)>,
}

/// `wgmma` of a warp that are in flight, in order, with moves of their accumulators.
#[derive(Default)]
pub(super) struct Matrix {
    pub queue: VecDeque<Pending>,
    pub open: u64,
    /// Group and stamp of every instruction issued.
    pub stamps: Vec<(u64, Stamp)>,
    /// For each row, how many queue entries write it, and how many read it as operand A.
    pub writing: Vec<u32>,
    pub reading: Vec<u32>,
    /// Whether there was a `wgmma.fence`, and rows written since the last one.
    pub fenced: bool,
    pub unfenced: Vec<bool>,
}

impl Matrix {
    pub fn fence(&mut self) {
        self.fenced = true;
        self.unfenced.fill(false);
    }

    /// A move counts as written when its source was: compilers move constants and accumulators past fences, and
    /// the assembler orders those.
    pub fn note_writes(&mut self, rows: &[Reg], copied: Option<Reg>) {
        let unfenced = copied.is_none_or(|a| self.unfenced[a as usize]);
        for d in rows {
            self.unfenced[*d as usize] = unfenced;
        }
    }
}

/// An entry of the queue; the group is the one that was open.
pub(super) struct Pending {
    pub group: u64,
    /// Whether it has taken effect; its registers stay in flight until the warp waits.
    pub done: bool,
    pub step: Step,
}

pub(super) enum Step {
    Multiply(Box<Multiply>),
    Move { d: Reg, a: Reg },
}

/// An instruction with its operands at issue.
pub(super) struct Multiply {
    pub pc: u32,
    pub scale_d: bool,
    pub left: Left,
    pub right: Tile,
}

/// Operand A.
pub(super) enum Left {
    Rows(Box<[Row; 4]>),
    Tile(Tile),
}

impl Left {
    /// What it reads of shared memory.
    pub fn chunks(&self) -> &[u64] {
        match self {
            Self::Rows(_) => &[],
            Self::Tile(tile) => &tile.chunks,
        }
    }
}

impl Fragment {
    fn new(pc: u32, mask: u32, join: Option<u32>) -> Self {
        Self { pc, mask, join, wait: None, ready: 0, idle: u64::MAX }
    }
}

impl Warp {
    pub fn start(&mut self, mask: u32) {
        self.live = mask;
        self.fragments = vec![Fragment::new(0, mask, None)];
    }

    /// The stamp of what it does now.
    pub fn stamp(&self) -> Stamp {
        Stamp { agent: self.agent, time: self.knowledge.seen.0[self.agent as usize] }
    }

    /// A stamp for a new asynchronous operation.
    pub fn issue(&mut self) -> Stamp {
        self.issued += 1;
        Stamp { agent: self.agent + self.knowledge.warps as u16, time: self.issued }
    }

    /// Starts a new moment, after others may have learned of the moments before.
    pub fn tick(&mut self) {
        self.knowledge.seen.0[self.agent as usize] += 1;
    }

    /// Moves a fragment's lanes to their targets; lanes with different targets part until `rejoin`.
    pub fn jump(&mut self, fragment: usize, targets: &[(u32, u32)], rejoin: u32) {
        if let [(pc, _)] = *targets {
            self.fragments[fragment].pc = pc;
            return;
        }
        let parting = self.fragments.swap_remove(fragment);
        let join = self.join_at(parting, rejoin);
        let parts = targets.iter().map(|(pc, mask)| Fragment::new(*pc, *mask, join));
        self.fragments.extend(parts);
    }

    fn join_at(&mut self, parting: Fragment, rejoin: u32) -> Option<u32> {
        let already = parting.join.is_some_and(|j| self.joins[j as usize].rejoin == rejoin);
        if rejoin == u32::MAX || already {
            return parting.join;
        }
        let join = Join { rejoin, expected: parting.mask, arrived: 0, parent: parting.join, free: false };
        if let Some(free) = self.joins.iter().position(|j| j.free) {
            self.joins[free] = join;
            return Some(free as u32);
        }
        self.joins.push(join);
        Some(self.joins.len() as u32 - 1)
    }

    /// Whether the fragment stands where its lanes meet others.
    pub fn at_join(&self, fragment: usize) -> bool {
        let f = &self.fragments[fragment];
        f.join.is_some_and(|j| self.joins[j as usize].rejoin == f.pc)
    }

    /// Lets the fragment arrive; it goes on, with the others, once all are there.
    pub fn arrive(&mut self, fragment: usize) {
        let arriving = self.fragments.swap_remove(fragment);
        if let Some(join) = arriving.join {
            self.joins[join as usize].arrived |= arriving.mask;
            self.release(join);
        }
    }

    fn release(&mut self, index: u32) {
        let join = &mut self.joins[index as usize];
        if join.free || join.arrived != join.expected {
            return;
        }
        join.free = true;
        let (pc, mask, parent) = (join.rejoin, join.expected, join.parent);
        if mask != 0 {
            self.fragments.push(Fragment::new(pc, mask, parent));
        }
    }

    /// Takes lanes out of the warp.
    pub fn exit(&mut self, fragment: usize, mask: u32) {
        self.live &= !mask;
        let left = self.fragments[fragment].mask & !mask;
        if left == 0 {
            self.fragments.swap_remove(fragment);
        } else {
            self.fragments[fragment].mask = left;
            self.fragments[fragment].pc += 1;
        }
        // Those who wait for lanes of the warp look again which of them still live.
        self.fragments.iter_mut().filter(|f| f.wait == Some(Wait::Lanes)).for_each(|f| f.wait = None);
        for i in 0..self.joins.len() {
            if !self.joins[i].free {
                self.joins[i].expected &= self.live;
                self.joins[i].arrived &= self.live;
                self.release(i as u32);
            }
        }
    }

    /// Fragments that can run and have not found nothing to do since the last progress.
    pub fn runnable(&self, progress: u64) -> impl Iterator<Item = usize> {
        let able = move |f: &Fragment| f.wait.is_none() && f.idle != progress;
        self.fragments.iter().enumerate().filter(move |(_, f)| able(f)).map(|(i, _)| i)
    }

    pub fn new(cta: usize, index: u32, agent: u16, warps: usize, rows: Vec<Row>, local_bytes: usize) -> Self {
        let mut knowledge = Knowledge::new(warps);
        knowledge.seen.0[agent as usize] = 1;
        let count = rows.len();
        Self {
            cta,
            index,
            agent,
            rows,
            live: 0,
            waited: 0,
            fragments: vec![],
            joins: vec![],
            knowledge,
            issued: 0,
            local: vec![0; local_bytes * LANES],
            local_written: Written::new(local_bytes * LANES),
            copies: Groups::default(),
            bulk: Groups::default(),
            matrix: Matrix {
                writing: vec![0; count],
                reading: vec![0; count],
                unfenced: vec![false; count],
                ..Matrix::default()
            },
        }
    }
}

/// Lanes of a mask, in order.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}
