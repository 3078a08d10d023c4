//! Who has read bytes of shared memory since they were written.

use crate::clock::{Clock, Stamp};
use crate::fault::FaultKind;
use crate::shared::{Agent, race};

/// The stamp of what never happened.
pub(crate) const NEVER: Stamp = Stamp { agent: u16::MAX, time: 0 };
/// The time of a read stamp of this agent is an index of [`Readers::sets`].
const SEVERAL: u16 = u16::MAX - 1;

/// Clocks of bytes that several agents have read, each with the number of those bytes.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    sets: Vec<(Clock, u32)>,
    free: Vec<u32>,
}

impl Readers {
    /// Notes that `who` reads bytes whose mark is `read`.
    pub fn mark(&mut self, read: &mut Stamp, bytes: u32, who: &Agent) {
        if *read == who.stamp {
            return;
        }
        if read.agent == SEVERAL {
            let (clock, users) = &mut self.sets[read.time as usize];
            if *users == bytes {
                clock.raise(who.stamp);
            } else {
                // Other bytes keep the set as it is.
                *users -= bytes;
                let mut clock = clock.clone();
                clock.raise(who.stamp);
                *read = self.add(clock, bytes);
            }
        } else if *read == NEVER || read.agent == who.stamp.agent || who.knowledge.seen.knows(*read) {
            *read = who.stamp;
        } else {
            let mut clock = Clock::new(who.knowledge.seen.0.len());
            clock.raise(*read);
            clock.raise(who.stamp);
            *read = self.add(clock, bytes);
        }
    }

    /// Every reader has to be in the past of who writes.
    pub fn check(&self, read: Stamp, i: usize, who: &Agent) -> Result<(), FaultKind> {
        let unseen = match read.agent {
            _ if read == NEVER => None,
            SEVERAL => {
                let (clock, _) = &self.sets[read.time as usize];
                let pairs = clock.0.iter().zip(&who.knowledge.seen.0);
                pairs.enumerate().find(|(_, (read, seen))| read > seen).map(|(agent, _)| agent as u16)
            }
            _ => (!who.knowledge.seen.knows(read)).then_some(read.agent),
        };
        unseen.map_or(Ok(()), |agent| Err(race(i, who, "a read", agent)))
    }

    pub fn forget(&mut self, read: &mut Stamp, bytes: u32) {
        if read.agent == SEVERAL {
            let users = &mut self.sets[read.time as usize].1;
            *users -= bytes;
            if *users == 0 {
                self.free.push(read.time);
            }
        }
        *read = NEVER;
    }

    fn add(&mut self, clock: Clock, bytes: u32) -> Stamp {
        let index = self.free.pop().unwrap_or(self.sets.len() as u32);
        if index as usize == self.sets.len() {
            self.sets.push((clock, bytes));
        } else {
            self.sets[index as usize] = (clock, bytes);
        }
        Stamp { agent: SEVERAL, time: index }
    }
}
