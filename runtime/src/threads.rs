//! Sharing a launch's units among threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::RuntimeError;

/// Pieces per thread, so that a slow thread does not hold up the others.
const PIECES_PER_THREAD: usize = 4;

/// A fixed number of threads: the caller's alone, or a pool's.
pub(crate) struct Threads {
    count: usize,
    pool: Option<ThreadPool>,
}

impl Threads {
    pub fn new(count: usize) -> Result<Self, RuntimeError> {
        let pool = (count > 1).then(|| ThreadPoolBuilder::new().num_threads(count).build()).transpose();
        let pool = pool.map_err(|e| RuntimeError::Step(format!("cannot start {count} threads: {e}")))?;
        Ok(Threads { count: count.max(1), pool })
    }

    /// Calls `body(begin, end, thread)` for disjoint ranges that make up `0..units`: one range here when `alone` is set,
    /// else pieces on all threads. Which thread takes which piece is open, so `body` must not depend on it.
    pub fn share(&self, units: usize, alone: bool, body: &(dyn Fn(usize, usize, usize) + Sync)) {
        let Some(pool) = self.pool.as_ref().filter(|_| !alone && units > 1) else {
            return body(0, units, 0);
        };
        let piece = units.div_ceil(self.count * PIECES_PER_THREAD);
        let next = AtomicUsize::new(0);
        pool.broadcast(|context| {
            loop {
                let begin = next.fetch_add(piece, Ordering::Relaxed);
                if begin >= units {
                    return;
                }
                body(begin, units.min(begin + piece), context.index());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_done_once_by_a_known_thread() {
        for (threads, units) in [(1, 0), (1, 7), (2, 1), (2, 7), (3, 1000), (4, 3)] {
            let done: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
            Threads::new(threads).unwrap().share(units, false, &|begin, end, thread| {
                assert!(thread < threads);
                for count in &done[begin..end] {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {units}");
        }
    }
}
