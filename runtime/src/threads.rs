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

/// The threads that take part in a step.
pub(crate) struct Crew {
    count: usize,
}

impl Threads {
    pub fn new(count: usize) -> Result<Self, RuntimeError> {
        let pool = (count > 1).then(|| ThreadPoolBuilder::new().num_threads(count).build()).transpose();
        let pool = pool.map_err(|e| RuntimeError::Step(format!("cannot start {count} threads: {e}")))?;
        Ok(Threads { count: count.max(1), pool })
    }

    /// Runs a step: on the calling thread, or, when `several` may share it, on one of the pool's. The move to the pool
    /// takes as long as waking a thread does, so it is made once for a step and not for each launch.
    pub fn run(&self, several: bool, step: impl FnOnce(&Crew) + Send) {
        match self.pool.as_ref().filter(|_| several) {
            Some(pool) => pool.install(|| step(&Crew { count: self.count })),
            None => step(&Crew { count: 1 }),
        }
    }
}

impl Crew {
    /// Calls `body(begin, end, thread)` for disjoint ranges that make up `0..units`: one range here, or pieces on all
    /// threads that come in time when the work is `shared`. Which thread takes which piece is open, so results must
    /// not depend on it; `thread` is below the number of threads, and no two calls have the same at the same time.
    pub fn share(&self, units: usize, shared: bool, body: &(dyn Fn(usize, usize, usize) + Sync)) {
        if self.count == 1 || !shared || units < 2 {
            return body(0, units, self.thread());
        }
        let piece = units.div_ceil(self.count * PIECES_PER_THREAD);
        let next = AtomicUsize::new(0);
        let take_pieces = || {
            loop {
                let begin = next.fetch_add(piece, Ordering::Relaxed);
                if begin >= units {
                    return;
                }
                body(begin, units.min(begin + piece), self.thread());
            }
        };
        rayon::scope(|scope| {
            (1..self.count).for_each(|_| scope.spawn(|_| take_pieces()));
            take_pieces();
        });
    }

    /// A crew of one may be any thread; a larger one exists in its pool only.
    fn thread(&self) -> usize {
        if self.count == 1 { 0 } else { rayon::current_thread_index().unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_done_once_by_a_known_thread() {
        for (threads, units) in [(1, 0), (1, 7), (2, 1), (2, 7), (3, 1000), (4, 3)] {
            for (several, shared) in [(true, true), (true, false), (false, true)] {
                let done: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                let body = |begin: usize, end: usize, thread: usize| {
                    assert!(thread < threads);
                    for count in &done[begin..end] {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                };
                let crew = Threads::new(threads).unwrap();
                crew.run(several, |crew| crew.share(units, shared, &body));
                assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {units}");
            }
        }
    }

    #[test]
    fn a_thread_number_is_never_used_twice_at_once() {
        let threads = 4;
        let busy: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        let body = |_: usize, _: usize, thread: usize| {
            assert_eq!(busy[thread].fetch_add(1, Ordering::SeqCst), 0);
            std::thread::yield_now();
            busy[thread].fetch_sub(1, Ordering::SeqCst);
        };
        let crew = Threads::new(threads).unwrap();
        crew.run(true, |crew| (0..200).for_each(|_| crew.share(64, true, &body)));
    }
}
