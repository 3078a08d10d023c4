//! Execution of one cluster: its warps take turns in a seeded order.

mod access;
mod barriers;
mod exchange;
mod gather;
mod lane;
mod matrix;
mod object;
mod request;
mod setup;
mod step;
mod tensor;
mod transfer;
mod warp;
mod wgmma;

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clock::Stamp;
use crate::fault::{Fault, FaultKind, Position, Trouble, Waiting};
use crate::launch::World;
use crate::memory::Memory;
use crate::program::Row;
use crate::shared::Shared;
use crate::stats::Stats;
use barriers::{ClusterBarrier, NamedBarrier};
use transfer::Transfer;
use warp::{Wait, Warp};

/// A cluster while it runs.
pub(crate) struct Machine<'m> {
    world: &'m World<'m>,
    /// The device's memory and the launch's counts, while the cluster has its turn.
    memory: Memory,
    stats: Stats,
    ctas: Vec<Cta>,
    warps: Vec<Warp>,
    transfers: Vec<Transfer>,
    /// The last copy whose bytes the barrier object at this offset of a CTA counts.
    counted: BTreeMap<(usize, u64), Stamp>,
    cluster: ClusterBarrier,
    /// Counts everything that may let a waiting warp go on.
    progress: u64,
    /// Looks that those who poll had without progress, and since which.
    stalls: (u64, u32),
    rng: ChaCha8Rng,
}

/// A CTA: its shared memory and its barriers.
struct Cta {
    id: [u32; 3],
    shared: Shared,
    barriers: Vec<NamedBarrier>,
    /// Its warps among those of the cluster.
    first_warp: usize,
    warps: usize,
    finished: bool,
}

/// Instructions that a warp executes before another one gets its turn, at most.
const LONGEST_TURN: u32 = 64;

/// Turns of the warps of a cluster before another cluster gets its turn.
const TURNS: u32 = 1000;

/// What a cluster's turn led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Every warp waits for something that the cluster itself does not bring about.
    Stuck,
    Done,
}

/// Looks without progress before a poll counts as a wait that never ends.
const MOST_STALLS: u32 = 64;

impl<'m> Machine<'m> {
    pub fn new(world: &'m World<'m>, cluster: u64, seed: u64, spare: &mut Vec<Vec<Row>>) -> Self {
        let (ctas, warps) = setup::cluster(world, cluster, spare);
        let all = warps.len();
        Self {
            world,
            memory: Memory::new(),
            stats: Stats::default(),
            ctas,
            warps,
            transfers: vec![],
            counted: BTreeMap::new(),
            cluster: ClusterBarrier::new(all),
            progress: 0,
            stalls: (0, 0),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Its registers, for another cluster of the launch.
    pub fn into_registers(self) -> impl Iterator<Item = Vec<Row>> {
        self.warps.into_iter().map(|warp| warp.rows)
    }

    /// Lets the cluster run for a while.
    pub fn advance(&mut self, memory: &mut Memory, stats: &mut Stats) -> Result<State, Fault> {
        let mut exchange = |machine: &mut Self| {
            std::mem::swap(&mut machine.memory, memory);
            std::mem::swap(&mut machine.stats, stats);
        };
        exchange(self);
        let state = self.take_turns();
        exchange(self);
        state
    }

    fn take_turns(&mut self) -> Result<State, Fault> {
        let mut able = vec![];
        for _ in 0..TURNS {
            able.clear();
            let progress = self.progress;
            let warps = self.warps.iter().enumerate();
            able.extend(warps.filter(|(_, w)| w.runnable(progress).next().is_some()).map(|(i, _)| i));
            if !able.is_empty() {
                let warp = able[self.rng.random_range(0..able.len())];
                self.turn(warp)?;
            } else if !self.transfers.is_empty() {
                let next = self.rng.random_range(0..self.transfers.len());
                self.complete(next)?;
            } else if self.warps.iter().all(|w| w.live == 0) {
                return Ok(State::Done);
            } else if !self.ask_again() {
                self.stalls = (0, 0);
                return Ok(State::Stuck);
            }
        }
        Ok(State::Running)
    }

    /// Lets fragments that found nothing to do look again, a few times without progress: not every one that asks
    /// for a state waits for it.
    fn ask_again(&mut self) -> bool {
        let (since, times) = &mut self.stalls;
        *times = if *since == self.progress { *times + 1 } else { 0 };
        *since = self.progress;
        let fragments = self.warps.iter_mut().flat_map(|w| &mut w.fragments);
        let mut idle = fragments.filter(|f| f.wait.is_none()).peekable();
        let some = idle.peek().is_some();
        idle.for_each(|f| f.idle = u64::MAX);
        some && *times < MOST_STALLS
    }

    /// Lets one fragment of a warp execute a few instructions.
    fn turn(&mut self, w: usize) -> Result<(), Fault> {
        let choices = self.warps[w].runnable(self.progress).count();
        let pick = if choices > 1 { self.rng.random_range(0..choices) } else { 0 };
        let Some(fragment) = self.warps[w].runnable(self.progress).nth(pick) else { return Ok(()) };
        let steps = self.rng.random_range(1..=LONGEST_TURN);
        for _ in 0..steps {
            let pc = self.warps[w].fragments[fragment].pc;
            match self.step(w, fragment) {
                Ok(true) => {}
                Ok(false) => break,
                Err(trouble) => return Err(self.fault(trouble, w, pc)),
            }
        }
        if self.stats.instructions > self.world.options.budget {
            let (kind, pc) = (FaultKind::Budget(self.world.options.budget), self.warps[w].fragments.first());
            let pc = pc.map_or(0, |f| f.pc);
            return Err(self.fault(kind.into(), w, pc));
        }
        Ok(())
    }

    fn fault(&self, trouble: Trouble, w: usize, pc: u32) -> Fault {
        let position = Some(Box::new(Position { lane: trouble.lane, ..self.position(w, pc) }));
        Fault { kind: trouble.kind, kernel: self.world.kernel.name.clone(), position }
    }

    fn position(&self, w: usize, pc: u32) -> Position {
        let warp = &self.warps[w];
        let inst = &self.world.kernel.code[pc as usize];
        let location = self.world.kernel.locations[inst.location as usize];
        let named = |(file, line): (u32, u32)| {
            let file = self.world.module.files.get((file as usize).wrapping_sub(1))?;
            Some((file.clone(), line))
        };
        Position {
            cta: self.ctas[warp.cta].id,
            warp: warp.index,
            lane: None,
            ptx_line: inst.line,
            source: named(location.at),
            inlined_at: location.outer.and_then(named),
        }
    }

    pub fn deadlock(&self) -> Fault {
        let mut waiting = vec![];
        for (w, warp) in self.warps.iter().enumerate() {
            for fragment in &warp.fragments {
                let reason = match fragment.wait {
                    None => self.polling(w),
                    Some(Wait::Lanes) => {
                        format!("waits for lanes {:#010x} of its warp", warp.live & !fragment.ready)
                    }
                    Some(Wait::Barrier(id)) => self.ctas[warp.cta].barriers[id].describe(id),
                    Some(Wait::Cluster) => "waits for the cluster's barrier".into(),
                };
                waiting.push(Waiting { position: self.position(w, fragment.pc), reason });
            }
        }
        let position = waiting.first().map(|w: &Waiting| Box::new(w.position.clone()));
        Fault { kind: FaultKind::Deadlock(waiting), kernel: self.world.kernel.name.clone(), position }
    }

    /// Which barrier objects a polling warp may wait for, in words.
    fn polling(&self, w: usize) -> String {
        let barriers = &self.ctas[self.warps[w].cta].shared.barriers;
        let states: Vec<String> =
            barriers.iter().map(|(at, b)| format!("mbarrier {at:#x} is in {}", b.describe())).collect();
        format!("polls; {}", states.join("; "))
    }
}
