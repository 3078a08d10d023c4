//! Files that are mapped, and what tells that one is no longer what it was.

use std::fs::Metadata;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fireq_ir::ByteSource;
use memmap2::Mmap;

use crate::bounded;
use crate::faults::Watched;

/// A read-only mapped file. Where the system cannot read it any more, as when it was cut off, the process ends with a message
/// that names it, if [`explain_faults`](crate::explain_faults) was called, else as after any fault.
#[derive(Debug)]
pub struct Mapped {
    /// First, so that it ends before the mapping does.
    _watched: Watched,
    map: Mmap,
    path: PathBuf,
    stamp: Option<Stamp>,
}

impl Mapped {
    /// Maps a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = bounded::open(path)?;
        let found = file.metadata()?;
        // SAFETY: the map is read-only; a file that another process changes meanwhile can change numbers, never types or
        // ranges, which are checked once and kept apart from the mapping.
        let map = unsafe { Mmap::map(&file)? };
        let watched = Watched::new(&map, path);
        Ok(Mapped { map, path: path.to_path_buf(), stamp: Stamp::of(&found), _watched: watched })
    }

    /// The mapping, for advice to the system.
    pub fn map(&self) -> &Mmap {
        &self.map
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl ByteSource for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn release(&self, range: Range<usize>) {
        let inside = around(&self.map, &range);
        // SAFETY: the mapping is shared and never written, so dropped pages come back from the file unchanged.
        let advised = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, inside.start, inside.len())
        };
        // Advice that is not taken costs memory, not correctness.
        drop(advised);
    }

    fn changed(&self) -> Option<PathBuf> {
        let now = std::fs::metadata(&self.path).ok().and_then(|found| Stamp::of(&found));
        Some(self.path.clone()).filter(|_| now.is_none() || now != self.stamp)
    }
}

/// What changes when a file is written, cut off or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    written: SystemTime,
}

impl Stamp {
    fn of(found: &Metadata) -> Option<Self> {
        #[cfg(unix)]
        let place = (std::os::unix::fs::MetadataExt::dev(found), std::os::unix::fs::MetadataExt::ino(found));
        #[cfg(not(unix))]
        let place = (0, 0);
        Some(Stamp { place, size: found.len(), written: found.modified().ok()? })
    }
}

/// A range and what may have been mapped along with it: kernels map what surrounds a page that is read, as far as one table of
/// pages reaches. What others read there comes back.
fn around(map: &[u8], range: &Range<usize>) -> Range<usize> {
    const TABLE: usize = 2 << 20;
    let base = map.as_ptr() as usize % TABLE;
    let start = (base + range.start) / TABLE * TABLE;
    let end = (base + range.end).next_multiple_of(TABLE);
    start.saturating_sub(base).min(map.len())..(end - base).min(map.len())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_cut_off_replaced_or_removed_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let changes: [(bool, &dyn Fn()); 6] = [
            (false, &|| ()),
            (false, &|| drop(fs::read(&path).unwrap())),
            (true, &|| fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap()),
            (true, &|| File::options().write(true).open(&path).unwrap().set_len(3).unwrap()),
            (true, &|| {
                fs::write(dir.path().join("g"), b"other").unwrap();
                fs::rename(dir.path().join("g"), &path).unwrap();
            }),
            (true, &|| fs::remove_file(&path).unwrap()),
        ];
        for (n, (changed, change)) in changes.into_iter().enumerate() {
            fs::write(&path, b"bytes").unwrap();
            // Long ago, so that what is written now has another time however coarse clocks are.
            File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            let mapped = Mapped::open(&path).unwrap();
            change();
            assert_eq!(mapped.changed(), changed.then(|| path.clone()), "{n}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_mapped() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mapped::open(dir.path()).unwrap_err().to_string(), "it is not a regular file");
        fs::write(dir.path().join("empty"), b"").unwrap();
        assert!(Mapped::open(&dir.path().join("empty")).unwrap().is_empty());
    }
}
