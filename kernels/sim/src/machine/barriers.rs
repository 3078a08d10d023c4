//! Barriers of a CTA and of a cluster.

use super::Machine;
use super::warp::Wait;
use crate::clock::Knowledge;
use crate::fault::{Trouble, undefined};
use crate::op::Reduction;
use crate::program::{LANES, Reg};

/// One of the sixteen barriers of a CTA.
pub(super) struct NamedBarrier {
    /// Threads that arrived.
    arrived: u32,
    /// Threads that the barrier waits for; unknown before the first arrival, and all of the CTA without a count.
    expected: Option<Expected>,
    knowledge: Knowledge,
    waiting: Vec<usize>,
    /// Predicates that were true, and rows to write the result to: warp, operation, row.
    votes: u32,
    results: Vec<(usize, Reduction, Reg)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    All,
    Threads(u32),
}

/// The barrier of a cluster: arrivals of this phase and of the phase that completed last.
pub(super) struct ClusterBarrier {
    /// Warps that arrived in the open phase.
    arrived: Vec<usize>,
    /// Warps that arrived in the completed phase and have not waited yet.
    passed: Vec<usize>,
    knowledge: Knowledge,
    /// What those who arrived in the completed phase knew.
    completed: Knowledge,
}

impl ClusterBarrier {
    pub fn new(warps: usize) -> Self {
        let (knowledge, completed) = (Knowledge::new(warps), Knowledge::new(warps));
        Self { arrived: vec![], passed: vec![], knowledge, completed }
    }
}

impl NamedBarrier {
    pub fn new(warps: usize) -> Self {
        let knowledge = Knowledge::new(warps);
        Self { arrived: 0, expected: None, knowledge, waiting: vec![], votes: 0, results: vec![] }
    }

    pub fn describe(&self, id: usize) -> String {
        let expected = match self.expected {
            Some(Expected::Threads(n)) => format!("{n} threads"),
            _ => "all threads".into(),
        };
        format!("waits at barrier {id} with {} of {expected}", self.arrived)
    }
}

impl Machine<'_> {
    /// A warp's arrival at a named barrier; tells whether it has to wait.
    pub(super) fn arrive_at_barrier(
        &mut self,
        w: usize,
        id: usize,
        count: Option<u32>,
        waits: bool,
        mask: u32,
        vote: Option<(Reduction, Reg, Reg)>,
    ) -> Result<bool, Trouble> {
        let cta = self.warps[w].cta;
        let Some(barrier) = self.ctas[cta].barriers.get_mut(id) else {
            return Err(undefined(format!("barrier {id} of 16")).into());
        };
        let expected = count.map_or(Expected::All, Expected::Threads);
        if count.is_some_and(|n| n == 0 || n % LANES as u32 != 0) {
            return Err(undefined("the thread count of a barrier is not a multiple of 32").into());
        }
        if barrier.expected.is_some_and(|e| e != expected) {
            return Err(undefined(format!("barrier {id} with different thread counts")).into());
        }
        if barrier.waiting.contains(&w) {
            return Err(undefined(format!("a warp arrives twice in one phase of barrier {id}")).into());
        }
        barrier.expected = Some(expected);
        barrier.arrived += LANES as u32;
        barrier.knowledge.join(&self.warps[w].knowledge);
        self.warps[w].tick();
        if let Some((reduction, d, p)) = vote {
            let row = &self.warps[w].rows[p as usize];
            barrier.votes += super::warp::lanes(mask).filter(|l| row[*l] & 1 == 1).count() as u32;
            barrier.results.push((w, reduction, d));
        }
        if waits {
            barrier.waiting.push(w);
        }
        self.progress += 1;
        self.settle_barrier(cta, id)?;
        Ok(waits && self.ctas[cta].barriers[id].waiting.contains(&w))
    }

    /// Completes the barrier if every thread it waits for has arrived.
    pub(super) fn settle_barrier(&mut self, cta: usize, id: usize) -> Result<(), Trouble> {
        let first = self.ctas[cta].first_warp;
        let warps = &self.warps[first..first + self.ctas[cta].warps];
        let alive = warps.iter().filter(|w| w.live != 0).count() as u32;
        let barrier = &mut self.ctas[cta].barriers[id];
        let needed = match barrier.expected {
            None => return Ok(()),
            Some(Expected::All) => alive * LANES as u32,
            Some(Expected::Threads(n)) => n,
        };
        if barrier.arrived > needed {
            return Err(undefined(format!("{} threads at barrier {id} of {needed}", barrier.arrived)).into());
        }
        if barrier.arrived < needed {
            return Ok(());
        }
        let waiting = std::mem::take(&mut barrier.waiting);
        let (votes, results) = (std::mem::take(&mut barrier.votes), std::mem::take(&mut barrier.results));
        (barrier.arrived, barrier.expected) = (0, None);
        for (w, reduction, d) in results {
            let value = match reduction {
                Reduction::Count => votes,
                Reduction::Or => u32::from(votes > 0),
                Reduction::And => u32::from(votes == self.world.shape.threads),
            };
            self.warps[w].rows[d as usize] = [value.into(); LANES];
        }
        let barrier = &self.ctas[cta].barriers[id];
        for w in waiting {
            self.warps[w].knowledge.join(&barrier.knowledge);
            for fragment in self.warps[w].fragments.iter_mut().filter(|f| f.wait == Some(Wait::Barrier(id))) {
                fragment.wait = None;
            }
        }
        self.progress += 1;
        Ok(())
    }

    pub(super) fn arrive_at_cluster(&mut self, w: usize) -> Result<(), Trouble> {
        if self.cluster.arrived.contains(&w) || self.cluster.passed.contains(&w) {
            return Err(undefined("barrier.cluster.arrive twice without a wait").into());
        }
        self.cluster.arrived.push(w);
        self.cluster.knowledge.join(&self.warps[w].knowledge);
        self.warps[w].tick();
        self.progress += 1;
        self.settle_cluster();
        Ok(())
    }

    pub(super) fn settle_cluster(&mut self) {
        let alive = self.warps.iter().filter(|w| w.live != 0).count();
        let arrived = self.cluster.arrived.iter().filter(|w| self.warps[**w].live != 0).count();
        if arrived < alive || arrived == 0 {
            return;
        }
        self.cluster.passed = std::mem::take(&mut self.cluster.arrived);
        self.cluster.completed = self.cluster.knowledge.clone();
        for warp in &mut self.warps {
            for fragment in warp.fragments.iter_mut().filter(|f| f.wait == Some(Wait::Cluster)) {
                fragment.wait = None;
            }
        }
        self.progress += 1;
    }

    /// Whether the phase that the warp arrived in is complete.
    pub(super) fn pass_cluster(&mut self, w: usize) -> Result<bool, Trouble> {
        if let Some(at) = self.cluster.passed.iter().position(|x| *x == w) {
            self.cluster.passed.swap_remove(at);
            self.warps[w].knowledge.join(&self.cluster.completed);
            return Ok(true);
        }
        if self.cluster.arrived.contains(&w) {
            return Ok(false);
        }
        Err(undefined("barrier.cluster.wait without an arrival").into())
    }
}
