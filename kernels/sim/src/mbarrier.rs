//! Memory barrier objects.

use crate::clock::Knowledge;

/// A barrier object: arrivals and bytes that its current phase still waits for.
#[derive(Debug)]
pub(crate) struct Barrier {
    /// Arrivals of the phases to come.
    expected: u32,
    pending: u32,
    /// Bytes expected minus bytes completed.
    transactions: i64,
    /// Phases completed.
    pub phase: u64,
    /// What those who arrived know, those of the open phase included.
    pub knowledge: Knowledge,
    /// What a wait for the last completed phase learns.
    pub completed: Knowledge,
    /// Whether a fence has made the initialisation visible to asynchronous copies.
    pub visible: bool,
}

/// Counts of arrivals and of transactions go up to here.
const MOST: u32 = (1 << 20) - 1;

impl Barrier {
    pub fn new(count: u32, warps: usize) -> Result<Self, String> {
        if count == 0 || count > MOST {
            return Err(format!("a count of {count} is not within 1..={MOST}"));
        }
        let (knowledge, completed) = (Knowledge::new(warps), Knowledge::new(warps));
        Ok(Self {
            expected: count,
            pending: count,
            transactions: 0,
            phase: 0,
            knowledge,
            completed,
            visible: false,
        })
    }

    /// Counts arrivals; `drop` also takes them out of the phases to come.
    pub fn arrive(&mut self, count: u32, drop: bool) -> Result<(), String> {
        if count == 0 || count > self.pending {
            return Err(format!("{count} arrivals where {} are pending", self.pending));
        }
        self.pending -= count;
        if drop {
            self.expected -= count;
        }
        self.advance();
        Ok(())
    }

    /// Expects one more arrival of this phase.
    pub fn expect_arrivals(&mut self, count: u32) -> Result<(), String> {
        self.pending += count;
        if self.pending > MOST { Err("too many pending arrivals".into()) } else { Ok(()) }
    }

    pub fn expect_bytes(&mut self, bytes: u32) -> Result<(), String> {
        self.transact(i64::from(bytes))
    }

    pub fn complete_bytes(&mut self, bytes: u32) -> Result<(), String> {
        self.transact(-i64::from(bytes))?;
        self.advance();
        Ok(())
    }

    fn transact(&mut self, bytes: i64) -> Result<(), String> {
        self.transactions += bytes;
        if self.transactions.unsigned_abs() > u64::from(MOST) {
            return Err(format!("a transaction count of {} is out of range", self.transactions));
        }
        Ok(())
    }

    fn advance(&mut self) {
        if self.pending == 0 && self.transactions == 0 {
            self.phase += 1;
            self.completed = self.knowledge.clone();
            self.pending = self.expected;
        }
    }

    /// What it waits for, in words.
    pub fn describe(&self) -> String {
        format!("phase {}: {} arrivals and {} bytes pending", self.phase, self.pending, self.transactions)
    }
}
