//! Artifacts whose writing was stopped: what is left at any time is gone on with, and the end is the same.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fireq_ir::{ByteSource, SharedBytes};

use super::*;

/// All there is beside an artifact after each part of a weight that was written, as a process leaves it that is killed then.
struct Snapshots {
    temp: tempfile::TempDir,
    model: (Graph, Lowered),
    /// How many weights the journal has in each.
    done: Vec<usize>,
}

impl Snapshots {
    fn new() -> Self {
        let (temp, model) = (tempfile::tempdir().unwrap(), model());
        let out = temp.path().join("out");
        let done = Mutex::new(vec![]);
        let take = |news| {
            if !matches!(news, News::Packed(..)) {
                return;
            }
            let mut done = done.lock().unwrap();
            let to = temp.path().join(format!("{}.partial", done.len()));
            copy(&temp.path().join("out.partial"), &to);
            done.push(fs::read_to_string(journal(&to)).unwrap().lines().count());
        };
        write(&plain(&model.0, &model.1), &out, code, &take).unwrap();
        let done = done.into_inner().unwrap();
        Snapshots { temp, model, done }
    }

    fn partial(&self, n: usize) -> PathBuf {
        self.temp.path().join(format!("{n}.partial"))
    }

    fn out(&self, n: usize) -> PathBuf {
        self.temp.path().join(n.to_string())
    }

    /// Writes the artifact from what is left, says how many weights were, and compares it with the undisturbed one.
    #[track_caller]
    fn goes_on(&self, n: usize, key: &str) -> usize {
        let resumed = Mutex::new(0);
        let tell = |news| {
            if let News::Resumed { weights, of, bytes, total } = news {
                assert!(of == 3 && bytes < total, "{news:?}");
                *resumed.lock().unwrap() = weights;
            }
        };
        let build = Build { key: key.into(), ..plain(&self.model.0, &self.model.1) };
        write(&build, &self.out(n), code, &tell).unwrap();
        assert_eq!(contents(&self.out(n)), contents(&self.temp.path().join("out")));
        assert!(!self.partial(n).exists());
        resumed.into_inner().unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, bytes) in contents(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::write(to.join(name), bytes).unwrap();
    }
}

/// The file of this kind in a folder of unfinished work.
fn of_kind(partial: &Path, kind: &str) -> PathBuf {
    let paths = fs::read_dir(partial).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == kind)).last().unwrap()
}

fn journal(partial: &Path) -> PathBuf {
    of_kind(partial, "journal")
}

#[test]
fn wherever_it_is_stopped_it_goes_on_and_gives_the_same() {
    let snapshots = Snapshots::new();
    assert_eq!(snapshots.done, [0, 1, 2, 2, 2]);
    for (n, done) in snapshots.done.iter().enumerate() {
        assert_eq!(snapshots.goes_on(n, ""), *done);
    }
}

#[test]
fn what_belongs_to_something_else_is_not_gone_on_with() {
    let snapshots = Snapshots::new();
    assert_eq!(snapshots.goes_on(4, "other"), 0);
}

#[test]
fn bytes_that_did_not_reach_the_disk_are_written_again() {
    let snapshots = Snapshots::new();
    // The parts of two weights follow each other: each byte is that of a finished one, of an unfinished one or of the header.
    let size = fs::read(of_kind(&snapshots.partial(4), "artifact").join(WEIGHTS)).unwrap().len();
    for lost in [0..64, size - 100..size, 0..size, size / 2..size / 2 + 1] {
        copy(&snapshots.partial(4), &snapshots.partial(5));
        let weights = of_kind(&snapshots.partial(5), "artifact").join(WEIGHTS);
        let mut bytes = fs::read(&weights).unwrap();
        bytes[lost].iter_mut().for_each(|b| *b = !*b);
        fs::write(&weights, bytes).unwrap();
        snapshots.goes_on(5, "");
        fs::remove_dir_all(snapshots.out(5)).unwrap();
    }
}

#[test]
fn what_was_half_made_is_no_part_of_the_artifact() {
    let snapshots = Snapshots::new();
    let dir = of_kind(&snapshots.partial(3), "artifact");
    fs::create_dir_all(dir.join("kernels")).unwrap();
    fs::write(dir.join("kernels/half"), b"half").unwrap();
    fs::write(dir.join("model.o"), b"half").unwrap();
    assert_eq!(snapshots.goes_on(3, ""), 2);
}

/// The line that says that everything is written.
fn finished(manifest: &[u8]) -> String {
    let json = format!("{{\"Finished\":\"{}\"}}", blake3::hash(manifest).to_hex());
    format!("{} {json}\n", &blake3::hash(json.as_bytes()).to_hex()[..16])
}

#[test]
fn the_artifact_that_was_replaced_is_not_taken_for_the_new_one() {
    let snapshots = Snapshots::new();
    let (partial, out) = (snapshots.partial(4), snapshots.temp.path().join("out"));
    let lines =
        fs::read_to_string(journal(&partial)).unwrap() + &finished(&fs::read(out.join(MANIFEST)).unwrap());
    let dir = of_kind(&partial, "artifact");
    // Finished, and not exchanged yet: all that the journal tells of is there.
    copy(&partial, &snapshots.partial(6));
    copy(&out, &of_kind(&snapshots.partial(6), "artifact"));
    fs::write(journal(&snapshots.partial(6)), &lines).unwrap();
    assert_eq!(snapshots.goes_on(6, ""), 2);
    // Exchanged: what is there is another one.
    fs::write(journal(&partial), &lines).unwrap();
    fs::write(dir.join(MANIFEST), b"of another one").unwrap();
    assert_eq!(snapshots.goes_on(4, ""), 0);
}

#[test]
fn an_artifact_that_was_moved_aside_is_moved_back_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (out, model) = (dir.path().join("m"), model());
    write_model(&model, &out, 1).unwrap();
    let before = contents(&out);
    let old = dir.path().join("m.partial/old");
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::rename(&out, &old).unwrap();
    drop(Partial::open(&out).unwrap());
    assert_eq!(contents(&out), before);
    copy(&out, &old);
    drop(Partial::open(&out).unwrap());
    assert_eq!(contents(dir.path()).len(), before.len(), "nothing is left beside it");
}

#[test]
fn one_process_at_a_time_writes_an_artifact() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/m");
    let first = Partial::open(&out).unwrap();
    let error = Partial::open(&out).unwrap_err();
    assert!(matches!(&error, ArtifactError::Busy(path) if *path == out), "{error}");
    Partial::open(&dir.path().join("new/other")).unwrap();
    drop(first);
    drop(Partial::open(&out).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A file that changes after it was looked at some times.
struct Changing {
    bytes: Vec<u8>,
    looks: AtomicUsize,
}

impl ByteSource for Changing {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn changed(&self) -> Option<PathBuf> {
        let same = self.looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        same.err().map(|_| "model.safetensors".into())
    }
}

#[test]
fn nothing_is_published_when_a_source_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (out, model) = (dir.path().join("m"), model());
    write_model(&model, &out, 1).unwrap();
    let before = contents(dir.path());
    // After each of three weights, and at the end.
    for looks in 0..5 {
        let source: SharedBytes = Arc::new(Changing { bytes: vec![0; 16], looks: AtomicUsize::new(looks) });
        let mut graph = Graph::new("sources");
        graph.constant("x", Type::plain(DType::F32, Shape::matrix(2, 2)), ConstData::shared(source, 0..16));
        let build = Build { sources: Sources::of(&graph), ..plain(&model.0, &model.1) };
        let written = write(&build, &out, code, &|_| ());
        assert_eq!(written.is_ok(), looks == 4, "{looks}");
        if let Err(error) = written {
            assert_eq!(
                error.to_string(),
                "`model.safetensors` was changed, replaced or cut off while it was being read"
            );
            assert_eq!(contents(dir.path()), before, "{looks}");
        }
    }
}

#[test]
fn progress_ends_with_everything_done() {
    let dir = tempfile::tempdir().unwrap();
    let (graph, lowered) = model();
    let build = plain(&graph, &lowered);
    let seen = Mutex::new(vec![]);
    let tell = |news| {
        if let News::Packed(done, total) = news {
            seen.lock().unwrap().push((done, total));
        }
    };
    write(&build, &dir.path().join("m"), code, &tell).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.len() == 5);
    let total = 19 * 172 * 2 + 172 * 4 + 37 * (96 + 2 + 4);
    assert_eq!(*seen.last().unwrap(), (total, total));
}
