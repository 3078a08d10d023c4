//! Sharing launches' units among threads that stay awake as long as a step takes.
//!
//! A step has hundreds of launches, most of them shorter than it takes to wake a thread. So workers sleep between steps
//! only. Within one they watch a number that counts launches: the thread that runs the step opens a launch, takes pieces of
//! it as all others do that come in time, closes it, and waits for those that joined. A worker that the system does not run
//! is not waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, available_parallelism, yield_now};
use std::{cell::UnsafeCell, hint::spin_loop, mem::transmute};

use crate::RuntimeError;

/// Pieces per thread, so that a slow thread does not hold up the others.
const PIECES_PER_THREAD: usize = 2;
/// How often a thread looks for what it waits for before it lets others run, where each has a core of its own: longer than
/// the launches take that one thread runs between those that are shared.
const SPINS: u32 = 2000;

/// A fixed number of threads: the caller's, and workers.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// The threads that take part in a step; `None` is the caller's alone.
pub(crate) struct Crew<'a>(Option<&'a Shared>);

impl Threads {
    pub fn new(count: usize) -> Result<Self, RuntimeError> {
        let count = count.max(1);
        let mut threads = Threads { shared: Arc::new(Shared::new(count)), workers: vec![] };
        for thread in 1..count {
            let shared = Arc::clone(&threads.shared);
            let worker = Builder::new().name(format!("fireq-{thread}")).spawn(move || shared.work(thread));
            let failed = |e| RuntimeError::Step(format!("cannot start {count} threads: {e}"));
            threads.workers.push(worker.map_err(failed)?);
        }
        Ok(threads)
    }

    /// Runs a step: alone on the calling thread, or, when `several` may share it, with the workers awake.
    pub fn run(&mut self, several: bool, step: impl FnOnce(&mut Crew<'_>)) {
        if !several || self.workers.is_empty() {
            return step(&mut Crew(None));
        }
        let _step = Awake::new(&self.shared);
        step(&mut Crew(Some(&self.shared)));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        *self.shared.gate() = true;
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // What a worker's pieces panic with was caught and reported.
            drop(worker.join());
        }
    }
}

/// A launch's work for a range of units on a thread.
type Body<'a> = &'a (dyn Fn(usize, usize, usize) + Sync);

impl Crew<'_> {
    /// Calls `body(begin, end, thread)` for disjoint ranges that make up `0..units`: one range here, or pieces on all
    /// threads that come in time when the work is `shared`. Which thread takes which piece is open, so results must
    /// not depend on it; `thread` is below the number of threads, and no two calls have the same at the same time.
    pub fn share(&mut self, units: usize, shared: bool, body: Body<'_>) {
        match self.0 {
            Some(crew) if shared && units > 1 => crew.launch(units, body),
            _ => body(0, units, 0),
        }
    }
}

/// On a cache line of its own, and the one that processors fetch with it.
#[repr(align(128))]
struct Apart<T>(T);

/// What the threads of a crew share.
struct Shared {
    /// [`STEP`] and [`OPEN`], above them the number of launches, below them that of workers who joined the last.
    state: Apart<AtomicU64>,
    /// The first unit that nobody took.
    next: Apart<AtomicUsize>,
    /// Written by the thread that runs the step while no worker has joined, read by workers who have.
    job: UnsafeCell<Option<Job>>,
    /// Whether a worker's piece panicked.
    failed: AtomicBool,
    /// Whether workers are to end. Locked to begin a step, too, so that no worker falls asleep over it.
    quit: Mutex<bool>,
    wake: Condvar,
    count: usize,
    spins: u32,
}

/// A step runs: workers are awake.
const STEP: u64 = 1 << 31;
/// A launch can be joined.
const OPEN: u64 = 1 << 30;
/// One launch.
const LAUNCH: u64 = 1 << 32;

#[derive(Clone, Copy)]
struct Job {
    body: Body<'static>,
    units: usize,
    piece: usize,
}

// SAFETY: `job` is only written while no worker has joined and read by those who have; the state orders both.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(count: usize) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Shared {
            state: Apart(AtomicU64::new(0)),
            next: Apart(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            failed: AtomicBool::new(false),
            quit: Mutex::new(false),
            wake: Condvar::new(),
            count,
            spins: if count > cores { 0 } else { SPINS },
        }
    }

    fn gate(&self) -> MutexGuard<'_, bool> {
        self.quit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a launch with all workers who join it.
    fn launch(&self, units: usize, body: Body<'_>) {
        let piece = units.div_ceil(self.count * PIECES_PER_THREAD);
        // SAFETY: the reference is not used after `Opened` is dropped, which waits for all who have it.
        let body = unsafe { transmute::<Body<'_>, Body<'static>>(body) };
        // SAFETY: one thread at a time runs a step, as `Threads::run` and `Crew::share` borrow exclusively; its last launch
        // is closed and all workers have left it.
        unsafe { *self.job.get() = Some(Job { body, units, piece }) };
        self.failed.store(false, Ordering::Relaxed);
        self.next.0.store(0, Ordering::Relaxed);
        let opened = Opened::new(self);
        self.take_pieces(0);
        drop(opened);
        assert!(!self.failed.load(Ordering::Relaxed), "a launch panicked on another thread");
    }

    /// Does pieces of the open launch until there are no more.
    fn take_pieces(&self, thread: usize) {
        // SAFETY: this thread opened the launch or joined it: nobody writes the job before it left.
        let Some(Job { body, units, piece }) = (unsafe { *self.job.get() }) else { return };
        loop {
            let begin = self.next.0.fetch_add(piece, Ordering::Relaxed);
            if begin >= units {
                return;
            }
            body(begin, units.min(begin + piece), thread);
        }
    }

    /// A worker's life.
    fn work(&self, thread: usize) {
        let mut last = u64::MAX;
        while self.sleep() {
            while let Some(launch) = self.join(last) {
                last = launch;
                let done = catch_unwind(AssertUnwindSafe(|| self.take_pieces(thread)));
                self.failed.fetch_or(done.is_err(), Ordering::Relaxed);
                self.state.0.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Waits for a step; false at the end.
    fn sleep(&self) -> bool {
        let mut quit = self.gate();
        while !*quit && self.state.0.load(Ordering::Relaxed) & STEP == 0 {
            quit = self.wake.wait(quit).unwrap_or_else(PoisonError::into_inner);
        }
        !*quit
    }

    /// Joins a launch other than the `last` one and returns its number; none when the step is over.
    fn join(&self, last: u64) -> Option<u64> {
        let mut patience = self.spins;
        loop {
            let state = self.state.0.load(Ordering::Relaxed);
            if state & STEP == 0 {
                return None;
            }
            let launch = state / LAUNCH;
            if state & OPEN == 0 || launch == last {
                wait(&mut patience);
            } else if self
                .state
                .0
                .compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
            {
                return Some(launch);
            }
        }
    }
}

fn wait(patience: &mut u32) {
    match patience.checked_sub(1) {
        Some(less) => {
            *patience = less;
            spin_loop();
        }
        None => yield_now(),
    }
}

/// A step in which workers are awake; they go to sleep when it is dropped.
struct Awake<'a>(&'a Shared);

impl<'a> Awake<'a> {
    fn new(shared: &'a Shared) -> Self {
        let gate = shared.gate();
        shared.state.0.fetch_or(STEP, Ordering::Relaxed);
        drop(gate);
        shared.wake.notify_all();
        Awake(shared)
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.state.0.fetch_and(!STEP, Ordering::Relaxed);
    }
}

/// A launch that can be joined; closed when it is dropped, which waits for all who joined.
struct Opened<'a>(&'a Shared);

impl<'a> Opened<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.0.fetch_add(LAUNCH | OPEN, Ordering::Release);
        Opened(shared)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let (state, mut patience) = (&self.0.state.0, self.0.spins);
        let mut now = state.fetch_and(!OPEN, Ordering::Acquire);
        while now & (OPEN - 1) != 0 {
            wait(&mut patience);
            now = state.load(Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests;
