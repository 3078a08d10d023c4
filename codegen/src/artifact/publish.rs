//! A finished artifact takes its place: at every moment, `OUT` or `OUT.partial/old` is a whole artifact, old or new.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::partial::remove;

/// Moves the finished directory `from` to `out`, on the disk as far as there is one. An artifact that is there is exchanged
/// with it in one step where the system can, so that there is one at any time; else it waits as `old` until the new one
/// is in its place. It is removed last.
pub(super) fn publish(from: &Path, out: &Path, old: &Path) -> io::Result<()> {
    sync_tree(from)?;
    if out.symlink_metadata().is_err() {
        fs::rename(from, out)?;
        return sync_parent(out);
    }
    if exchange(from, out).is_ok() {
        sync_parent(out)?;
        return remove(from);
    }
    replace(from, out, old)?;
    sync_parent(out)?;
    remove(old)
}

/// The two steps of systems that do not exchange directories.
fn replace(from: &Path, out: &Path, old: &Path) -> io::Result<()> {
    remove(old)?;
    fs::rename(out, old)?;
    fs::rename(from, out).inspect_err(|_| drop(fs::rename(old, out)))
}

/// Puts an artifact back that was moved aside by a process that ended before the new one was in its place.
pub(super) fn repair(old: &Path, out: &Path) -> io::Result<()> {
    match (old.is_dir(), out.symlink_metadata().is_ok()) {
        (true, false) => fs::rename(old, out),
        (true, true) => remove(old),
        (false, _) => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (a, b) = (name(a)?, name(b)?);
    // SAFETY: both are strings that end in a zero and outlive the call.
    let result = unsafe {
        libc::renameat2(libc::AT_FDCWD, a.as_ptr(), libc::AT_FDCWD, b.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Has all files and directories below `dir` on the disk.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { sync_tree(&path)? } else { sync(&path)? }
    }
    sync(dir)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    sync(super::parent(path))
}

/// Has a file or directory on the disk, as far as there is one.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    let synced = File::open(path)?.sync_all();
    let unsupported = [io::ErrorKind::Unsupported, io::ErrorKind::InvalidInput];
    synced.or_else(|e| if unsupported.contains(&e.kind()) { Ok(()) } else { Err(e) })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn place(dir: &Path, names: &[&str]) -> [PathBuf; 3] {
        for name in names {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("is"), name).unwrap();
        }
        ["from", "out", "old"].map(|name| dir.join(name))
    }

    fn is(path: &Path) -> Option<String> {
        fs::read_to_string(path.join("is")).ok()
    }

    #[test]
    fn the_new_one_is_there_and_the_old_one_gone() {
        for names in [&["from"][..], &["from", "out"], &["from", "out", "old"]] {
            let dir = tempfile::tempdir().unwrap();
            let [from, out, old] = place(dir.path(), names);
            publish(&from, &out, &old).unwrap();
            let stale = names.len() == 3;
            assert_eq!((is(&out).as_deref(), is(&from)), (Some("from"), None));
            assert!(!old.exists() || stale, "{names:?}");
            repair(&old, &out).unwrap();
            assert_eq!((is(&out).as_deref(), is(&old)), (Some("from"), None));
        }
    }

    #[test]
    fn in_two_steps_the_old_one_comes_back_when_the_second_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let [from, out, old] = place(dir.path(), &["from", "out", "old"]);
        replace(&from, &out, &old).unwrap();
        assert_eq!((is(&out).as_deref(), is(&old).as_deref()), (Some("from"), Some("out")));
        // Between the steps.
        fs::rename(&out, &from).unwrap();
        repair(&old, &out).unwrap();
        assert_eq!((is(&out).as_deref(), is(&old)), (Some("out"), None));
        // The second one fails.
        assert!(replace(&dir.path().join("missing"), &out, &old).is_err());
        assert_eq!((is(&out).as_deref(), is(&old)), (Some("out"), None));
    }
}
