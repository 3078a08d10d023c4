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
            let mut clock = Clock::new(2 * who.knowledge.warps);
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
                clock.unknown_to(&who.knowledge.seen)
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

#[cfg(test)]
mod tests {
    use crate::clock::{Knowledge, Stamp};
    use crate::fault::FaultKind;
    use crate::shared::{Agent, RESERVED, Shared};

    #[test]
    fn bytes_of_a_chunk_part_when_their_readers_do() {
        let knowing = |agents: &[u16]| {
            let mut knowledge = Knowledge::new(4);
            for agent in agents {
                knowledge.seen.raise(Stamp { agent: *agent, time: 1 });
            }
            knowledge
        };
        let at = RESERVED as u64;
        let mut shared = Shared::new(RESERVED + 64);
        let stamp = |agent| Stamp { agent, time: 1 };
        let all = [&[0][..], &[0, 1], &[0, 2], &[0, 3], &[0, 1, 2]].map(knowing);
        let who = |agent: u16, knowledge| Agent {
            stamp: stamp(agent),
            knowledge,
            asynchronous: false,
            access: "a test",
        };
        shared.write(at, 32, &who(0, &all[0])).unwrap();
        shared.read(at, 16, &who(1, &all[1])).unwrap();
        shared.read(at, 16, &who(2, &all[2])).unwrap();
        shared.read(at + 4, 4, &who(3, &all[3])).unwrap();
        // A writer that knows of 1 and 2, and not of 3.
        let writer = who(0, &all[4]);
        shared.write(at, 4, &writer).unwrap();
        shared.write(at + 8, 16, &writer).unwrap();
        for (offset, bytes) in [(4, 4), (7, 1), (0, 16)] {
            let race = shared.write(at + offset, bytes, &writer).unwrap_err();
            assert!(
                matches!(race, FaultKind::Race { offset, .. } if offset >= at + 4 && offset < at + 8),
                "{race:?}"
            );
        }
        let stranger = shared.write(at + 8, 8, &who(3, &knowing(&[3]))).unwrap_err();
        assert!(matches!(stranger, FaultKind::Race { offset, .. } if offset == at + 8), "{stranger:?}");
    }
}
