//! Hashes of an artifact's files: of most before they are read, of weights, which are large, while they are used.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rayon::ThreadPoolBuilder;

use crate::files::inside;
use crate::{Mapped, RuntimeError};

/// Bytes between two looks at whether anybody still wants the hash.
const BLOCK: usize = 64 << 20;

/// Hashes a file of an artifact.
pub(crate) fn check_file(dir: &Path, file: &str, expected: &str) -> Result<(), RuntimeError> {
    let path = inside(dir, file)?;
    let mapped = Mapped::open(&path).map_err(|source| RuntimeError::Io { path, source })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(&mapped);
    judge(hasher.finalize().to_hex().as_str() == expected, file)
}

fn judge(matches: bool, file: &str) -> Result<(), RuntimeError> {
    if matches { Ok(()) } else { Err(RuntimeError::Hash { file: file.into() }) }
}

/// Whether a mapped file has the hash that it should: found out on other threads.
#[derive(Debug)]
pub(crate) struct Check {
    file: String,
    work: Arc<Work>,
    state: Mutex<State>,
}

/// What the threads that hash share with those that want to know.
#[derive(Debug)]
struct Work {
    map: Arc<Mapped>,
    expected: String,
    threads: usize,
    abandoned: AtomicBool,
}

#[derive(Debug)]
enum State {
    New,
    Running(JoinHandle<bool>),
    Done(bool),
}

impl Check {
    /// Of a file of an artifact that is mapped here, and has this hash by its manifest.
    pub fn new(map: Arc<Mapped>, file: &str, expected: &str) -> Self {
        let (threads, abandoned) = (rayon::current_num_threads(), AtomicBool::new(false));
        let work = Work { map, expected: expected.into(), threads, abandoned };
        Check { file: file.into(), work: Arc::new(work), state: Mutex::new(State::New) }
    }

    /// Begins, unless it has begun.
    pub fn begin(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::New) {
            let work = Arc::clone(&self.work);
            let running = std::thread::Builder::new().name("fireq-hash".into()).spawn(move || work.matches());
            // Without a thread, whoever waits does it.
            *state = running.map_or(State::New, State::Running);
        }
    }

    /// Waits for the end; an error if the file is not what the manifest vouches for.
    pub fn wait(&self) -> Result<(), RuntimeError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let matches = match std::mem::replace(&mut *state, State::New) {
            State::New => self.work.matches(),
            State::Running(thread) => thread.join().unwrap_or_else(|_| self.work.matches()),
            State::Done(matches) => matches,
        };
        *state = State::Done(matches);
        judge(matches, &self.file)
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.work.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// On threads of its own: those that wait may be all of another pool's.
    fn matches(&self) -> bool {
        let pool = ThreadPoolBuilder::new().num_threads(self.threads).build();
        let mut hasher = blake3::Hasher::new();
        for block in self.map.chunks(BLOCK) {
            if self.abandoned.load(Ordering::Relaxed) {
                return false;
            }
            match &pool {
                Ok(pool) => drop(pool.install(|| hasher.update_rayon(block).count())),
                Err(_) => drop(hasher.update(block).count()),
            }
        }
        hasher.finalize().to_hex().as_str() == self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check of these bytes, all but the hash of which is `damage`d.
    fn check(bytes: &[u8], damage: bool) -> Check {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let expected = blake3::hash(bytes).to_hex().to_string();
        let mut stored = bytes.to_vec();
        stored[bytes.len() / 2] ^= u8::from(damage);
        std::io::Write::write_all(&mut file, &stored).unwrap();
        Check::new(Arc::new(Mapped::open(file.path()).unwrap()), "weights", &expected)
    }

    #[test]
    fn a_damaged_file_is_found_as_often_as_one_asks() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
        for begun in [true, false] {
            for damage in [true, false] {
                let check = check(&bytes, damage);
                if begun {
                    check.begin();
                    check.begin();
                }
                for _ in 0..3 {
                    let found = check.wait();
                    assert_eq!(
                        matches!(&found, Err(RuntimeError::Hash { file }) if file == "weights"),
                        damage
                    );
                    assert_eq!(found.is_ok(), !damage);
                }
            }
        }
    }

    #[test]
    fn those_that_wait_may_be_all_threads_of_a_pool() {
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            let check = check(&vec![7; 1 << 20], false);
            check.begin();
            check.wait().unwrap();
        });
    }

    #[test]
    fn what_nobody_waits_for_ends() {
        let check = check(&vec![7; 1 << 20], false);
        check.begin();
        let work = Arc::downgrade(&check.work);
        drop(check);
        while work.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
