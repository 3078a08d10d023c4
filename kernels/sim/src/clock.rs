//! Vector clocks: what each warp knows of the others' past.

/// One entry per agent; an agent is a warp, or the asynchronous operations that a warp issued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clock(pub Vec<u32>);

impl Clock {
    pub fn new(agents: usize) -> Self {
        Self(vec![0; agents])
    }

    /// Learns everything that `other` knows.
    pub fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    pub fn raise(&mut self, stamp: Stamp) {
        let entry = &mut self.0[stamp.agent as usize];
        *entry = (*entry).max(stamp.time);
    }

    /// Whether the event is in the past.
    pub fn knows(&self, stamp: Stamp) -> bool {
        self.0[stamp.agent as usize] >= stamp.time
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
    pub seen: Clock,
    pub fenced: Clock,
}

impl Knowledge {
    pub fn new(agents: usize) -> Self {
        Self { seen: Clock::new(agents), fenced: Clock::new(agents) }
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
