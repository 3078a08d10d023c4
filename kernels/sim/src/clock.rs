//! Vector clocks: what each warp knows of the others' past.

/// One entry per agent. An agent is a warp; the asynchronous operations of a warp whose groups are waited for in order; or
/// the copies whose bytes one barrier object counts, which have their entry once there are some. To know of a copy is to know
/// of those before it at the same barrier, and of no others of its warp.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clock(pub Vec<u32>);

impl Clock {
    pub fn new(agents: usize) -> Self {
        Self(vec![0; agents])
    }

    /// Learns everything that `other` knows.
    pub fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    pub fn raise(&mut self, stamp: Stamp) {
        let agent = stamp.agent as usize;
        if self.0.len() <= agent {
            self.0.resize(agent + 1, 0);
        }
        let entry = &mut self.0[agent];
        *entry = (*entry).max(stamp.time);
    }

    /// Whether the event is in the past.
    pub fn knows(&self, stamp: Stamp) -> bool {
        self.0.get(stamp.agent as usize).copied().unwrap_or_default() >= stamp.time
    }

    /// An agent of whose events some that are in this clock's past are not in `other`'s.
    pub fn unknown_to(&self, other: &Self) -> Option<u16> {
        let times = (0..).zip(self.0.iter().copied());
        let mut stamps = times.map(|(agent, time)| Stamp { agent, time });
        stamps.find(|stamp| !other.knows(*stamp)).map(|stamp| stamp.agent)
    }
}

/// An event: the agent's own count at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub agent: u16,
    pub time: u32,
}

/// What an agent knows, and how much of it a proxy fence has passed on to the asynchronous proxy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    /// Warps of the cluster: the first agents, and as many behind them are their asynchronous operations.
    pub warps: usize,
    pub seen: Clock,
    pub fenced: Clock,
}

impl Knowledge {
    pub fn new(warps: usize) -> Self {
        Self { warps, seen: Clock::new(2 * warps), fenced: Clock::new(2 * warps) }
    }

    pub fn join(&mut self, other: &Self) {
        self.seen.join(&other.seen);
        self.fenced.join(&other.fenced);
    }

    pub fn fence(&mut self) {
        let seen = self.seen.clone();
        self.fenced.join(&seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_appear_later_are_unknown_until_they_are_learned_of() {
        let (mut early, mut late) = (Clock::new(2), Clock::new(2));
        let copy = Stamp { agent: 5, time: 1 };
        late.raise(copy);
        assert_eq!(
            (early.knows(copy), late.unknown_to(&early), early.unknown_to(&late)),
            (false, Some(5), None)
        );
        early.join(&late);
        assert!(early.knows(copy) && !early.knows(Stamp { agent: 6, time: 1 }));
        assert_eq!(late.unknown_to(&early), None);
    }
}
