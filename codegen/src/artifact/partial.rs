//! `OUT.partial`: where an artifact lies until it is whole, so that a compilation that was stopped goes on where it was.
//!
//! Whoever writes to `OUT` holds a lock on the folder; it goes with the process, however that ends. `<key>.artifact` is what
//! becomes `OUT`, and `<key>.journal` says which of its weights are done; the key stands for all that their bytes depend
//! on. Folders named by 16 hexadecimal digits are others' finished work, such as blocks of a calibration. `old` is an
//! artifact that was moved aside by [`publish`](mod@super::publish) and is moved back if that was interrupted.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fireq_ir::artifact::{CUDA_WEIGHTS, MANIFEST, WEIGHTS};

use super::journal::Journal;
use super::publish::{publish, repair};
use super::sums::hash;
use super::{ArtifactError, at, check_output};

/// The right to write an artifact, and the folder for what is not done yet.
#[derive(Debug)]
pub struct Partial {
    out: PathBuf,
    dir: PathBuf,
    /// Directories that were made for it, innermost first.
    made: Vec<PathBuf>,
    /// The locked folder.
    _lock: File,
}

/// An artifact under construction.
pub(super) struct Work {
    /// Where its files are.
    pub dir: PathBuf,
    /// What is done.
    pub journal: Journal,
    journal_path: PathBuf,
}

impl Partial {
    /// Locks `OUT.partial`, which is made if need be, and repairs what an interrupted publication of `out` left. An error
    /// where another process holds the lock, and where `out` is something that is not to be replaced.
    pub fn open(out: &Path) -> Result<Self, ArtifactError> {
        let partial = Self::beside(out)?;
        check_output(out)?;
        Ok(partial)
    }

    /// The same for an output that is no artifact, and is looked after by who writes it.
    pub fn beside(out: &Path) -> Result<Self, ArtifactError> {
        let dir = folder(out);
        let made = dir.ancestors().skip(1).take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let made = made.map(Path::to_path_buf).collect();
        let lock = lock(&dir, out)?;
        let partial = Partial { out: out.to_path_buf(), dir, made, _lock: lock };
        repair(&partial.old(), out).map_err(at(out))?;
        Ok(partial)
    }

    /// The folder, for more that a later run can use: in folders named by 16 hexadecimal digits.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The artifact that is to be written.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Fills an empty folder, which takes the place of the output. Where that fails, the output is as it was.
    pub fn replace<T, E: From<ArtifactError>>(
        &self,
        fill: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let new = self.dir.join("new.artifact");
        remove(&new).and_then(|()| fs::create_dir(&new)).map_err(at(&new))?;
        let filled = fill(&new).and_then(|made| {
            publish(&new, &self.out, &self.old()).map_err(at(&self.out))?;
            Ok(made)
        });
        filled.inspect_err(|_| drop(remove(&new)))
    }

    /// Where an output waits while another takes its place.
    pub(super) fn old(&self) -> PathBuf {
        self.dir.join("old")
    }

    /// The artifact that `key` stands for, as far as an earlier run made it. Unfinished ones of other keys are removed: they
    /// are as large as artifacts.
    pub(super) fn work(&self, key: &blake3::Hash) -> Result<Work, ArtifactError> {
        let name = &key.to_hex()[..16];
        let (dir, journal_path) =
            (self.dir.join(format!("{name}.artifact")), self.dir.join(format!("{name}.journal")));
        for path in self.unfinished().filter(|path| *path != dir && *path != journal_path) {
            remove(&path).map_err(at(&path))?;
        }
        let mut journal = Journal::open(&journal_path)?;
        if !dir.is_dir() || is_replaced(&dir, &journal) {
            journal.clear()?;
            remove(&dir).and_then(|()| fs::create_dir(&dir)).map_err(at(&dir))?;
        }
        keep_weights(&dir).map_err(at(&dir))?;
        Ok(Work { dir, journal, journal_path })
    }

    /// Removes all that was left to go on with.
    pub fn clear(&self) -> Result<(), ArtifactError> {
        let paths = self.unfinished().chain(self.blocks()).chain([self.old()]);
        paths.into_iter().try_for_each(|path| remove(&path).map_err(at(&path)))
    }

    fn unfinished(&self) -> impl Iterator<Item = PathBuf> {
        let ours = |path: &PathBuf| path.extension().is_some_and(|e| e == "artifact" || e == "journal");
        self.entries().filter(ours)
    }

    fn blocks(&self) -> impl Iterator<Item = PathBuf> {
        let ours = |name: &str| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
        self.entries().filter(move |path| path.file_name().and_then(|n| n.to_str()).is_some_and(ours))
    }

    fn entries(&self) -> impl Iterator<Item = PathBuf> + use<> {
        fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path())
    }
}

impl Drop for Partial {
    /// What is empty goes: the folder, and directories that were made for an output that was not.
    fn drop(&mut self) {
        if fs::remove_dir(&self.dir).is_ok() {
            let _ = self.made.iter().try_for_each(fs::remove_dir);
        }
    }
}

impl Work {
    /// Removes all of it.
    pub fn discard(&self) -> Result<(), ArtifactError> {
        [&self.journal_path, &self.dir].into_iter().try_for_each(|path| remove(path).map_err(at(path)))
    }
}

/// `OUT.partial`.
fn folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    out.with_file_name(name)
}

/// The folder, made if need be and locked. Another process may remove it before it is locked, which is why the lock is
/// compared with what is there then.
fn lock(dir: &Path, out: &Path) -> Result<File, ArtifactError> {
    loop {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let file = match File::open(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(at(dir))?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(ArtifactError::Busy(out.to_path_buf())),
            // A file system without locks is one that its user looks after.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let here = fs::metadata(dir).map(|found| found.ino());
        if here.is_ok_and(|ino| file.metadata().is_ok_and(|locked| locked.ino() == ino)) {
            return Ok(file);
        }
    }
}

/// True where the folder holds the artifact that a finished one was exchanged with, and not what the journal tells of.
fn is_replaced(dir: &Path, journal: &Journal) -> bool {
    let manifest = dir.join(MANIFEST);
    let finished = journal.finished.as_ref().filter(|_| manifest.exists());
    finished.is_some_and(|finished| hash(&manifest).ok().as_ref() != Some(finished))
}

/// Removes all but files of weights: the rest is made again, and what is half made must not be part of the artifact.
fn keep_weights(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != WEIGHTS && name != CUDA_WEIGHTS {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or a directory with all in it, if there is one.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}
