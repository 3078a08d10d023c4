//! Files that change or fail while they are read, and disks that are full: said by name, and nothing of it is published.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use xtask::served::{Mounted, Served};

use super::model;

/// A model, and where its artifact goes.
struct Place {
    temp: TempDir,
    model: PathBuf,
    out: PathBuf,
}

/// Enough for a compilation that can be stopped on the way.
const LAYERS: usize = 24;

impl Place {
    fn new() -> Self {
        let temp = TempDir::new().unwrap();
        let (model, out) = (model(temp.path(), LAYERS), temp.path().join("out.fireq"));
        Place { temp, model, out }
    }

    /// The only file of weights.
    fn shard(&self) -> PathBuf {
        self.model.join("model-00001-of-00001.safetensors")
    }

    fn compile(&self) -> Command {
        let mut compile = Command::new(env!("CARGO_BIN_EXE_fireq"));
        compile.arg("compile").arg(&self.model).arg("-o").arg(&self.out);
        compile.args(["--cpu", "baseline"]).stdout(Stdio::null()).stderr(Stdio::piped());
        compile
    }

    /// Lines of the journal.
    fn done(&self) -> usize {
        let partial = self.out.with_extension("fireq.partial");
        let mut paths = fs::read_dir(partial).into_iter().flatten().flatten().map(|entry| entry.path());
        let journal = paths.find(|path| path.extension().is_some_and(|e| e == "journal"));
        journal.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default().lines().count()
    }

    /// A compilation that stands still with some weights done, and some not.
    fn stopped(&self) -> Child {
        loop {
            let mut child = self.compile().spawn().unwrap();
            while self.done() < 5 && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
            signal(&child, "STOP");
            if self.done() < 9 * LAYERS && child.try_wait().unwrap().is_none() {
                return child;
            }
            // Too quick for whoever looks.
            child.kill().unwrap();
            child.wait().unwrap();
            self.clean();
        }
    }

    fn clean(&self) {
        for path in [self.out.with_extension("fireq.partial"), self.out.clone()] {
            drop(fs::remove_dir_all(path));
        }
    }

    /// Bytes of the weights of an undisturbed compilation.
    fn undisturbed(&self) -> Vec<u8> {
        let mut place =
            Place { temp: TempDir::new().unwrap(), model: self.model.clone(), out: PathBuf::new() };
        place.out = place.temp.path().join("undisturbed");
        let (code, errors) = ended(place.compile().spawn().unwrap());
        assert_eq!(code, Some(0), "{errors}");
        fs::read(place.out.join("weights.safetensors")).unwrap()
    }
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status();
    // One that ended has no need of it.
    done.unwrap();
}

fn ended(child: Child) -> (Option<i32>, String) {
    let done = child.wait_with_output().unwrap();
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn a_shard_that_changes_is_named_and_nothing_is_published() {
    let place = Place::new();
    let (shard, bytes) = (place.shard(), fs::read(place.shard()).unwrap());
    let write = || File::options().write(true).open(&shard).unwrap();
    let other = place.temp.path().join("other");
    let changes: [&dyn Fn(); 3] = [
        &|| write().write_all(&bytes).unwrap(),
        &|| {
            fs::write(&other, &bytes).unwrap();
            fs::rename(&other, &shard).unwrap();
        },
        &|| fs::remove_file(&shard).unwrap(),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        // Long ago, however coarse the clock of the file system is.
        write().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let child = place.stopped();
        change();
        signal(&child, "CONT");
        let (code, errors) = ended(child);
        let expected = format!(
            "error: `{}` was changed, replaced or cut off while it was being read\n  \
             help: no artifact was written; leave the model as it is, and compile it again\n",
            shard.display()
        );
        assert_eq!((code, errors), (Some(1), expected), "{n}");
        assert!(!place.out.exists() && !place.out.with_extension("fireq.partial").exists(), "{n}");
    }
}

#[test]
fn a_shard_that_is_cut_off_is_named() {
    let place = Place::new();
    let child = place.stopped();
    File::options().write(true).open(place.shard()).unwrap().set_len(100_000).unwrap();
    signal(&child, "CONT");
    let (code, errors) = ended(child);
    // Found out by whoever reads what is gone, or at the end of a weight that was read before.
    let said = format!("error: `{}` was ", place.shard().display());
    assert!(code == Some(1) && errors.starts_with(&said) && errors.contains("cut off"), "{errors}");
    assert!(!place.out.exists());
}

#[test]
fn an_interrupt_leaves_what_the_next_run_goes_on_with() {
    let place = Place::new();
    let expected = place.undisturbed();
    let child = place.stopped();
    signal(&child, "INT");
    signal(&child, "CONT");
    assert_eq!(ended(child).0, None, "the signal ends it");
    let done = place.done();
    assert!(done >= 5 && !place.out.exists());
    let (code, errors) = ended(place.compile().spawn().unwrap());
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.starts_with(&format!("{done} of ")), "{errors}");
    assert!(fs::read(place.out.join("weights.safetensors")).unwrap() == expected);
    // From the beginning where that is wanted.
    place.clean();
    let mut child = place.stopped();
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, errors) = ended(place.compile().arg("--fresh").spawn().unwrap());
    assert_eq!((code, errors), (Some(0), String::new()));
    assert!(fs::read(place.out.join("weights.safetensors")).unwrap() == expected);
}

#[test]
fn two_at_once_do_not_write_the_same() {
    let place = Place::new();
    let child = place.stopped();
    let (code, errors) = ended(place.compile().spawn().unwrap());
    let expected = format!(
        "error: another fireq is writing `{}`\n  help: wait until it is done, or give another path\n",
        place.out.display()
    );
    assert_eq!((code, errors), (Some(1), expected));
    signal(&child, "CONT");
    let (code, errors) = ended(child);
    assert_eq!((code, errors), (Some(0), String::new()));
}

#[test]
fn a_file_that_may_not_grow_is_an_error() {
    let place = Place::new();
    let limited = "ulimit -f 100; exec \"$0\" compile \"$1\" -o \"$2\" --threads 2 --cpu baseline";
    let mut command = Command::new("bash");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_fireq")]).args([&place.model, &place.out]);
    let (code, errors) = ended(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("weights.safetensors: File too large (os error 27)"), "{errors}");
    assert!(!place.out.exists() && !place.out.with_extension("fireq.partial").exists());
}

/// A file system in memory, of some size.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path, size: usize) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let disk = Disk(at.to_path_buf());
        let mounted = mount(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "fireq"]);
        if !mounted {
            eprintln!("skipped: full disks need root, to mount one");
        }
        mounted.then_some(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status());
    }
}

fn mount(at: &Path, args: &[&str]) -> bool {
    let mounted: io::Result<_> = Command::new("mount").args(args).arg(at).stderr(Stdio::null()).status();
    mounted.is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_is_an_error_and_with_more_room_it_goes_on() {
    let mut place = Place::new();
    let expected = place.undisturbed();
    let Some(disk) = Disk::new(&place.temp.path().join("disk"), expected.len() / 2) else { return };
    place.out = disk.0.join("out.fireq");
    // On one thread code is made before weights are packed.
    let (code, errors) = ended(place.compile().args(["--threads", "1"]).spawn().unwrap());
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("No space left on device (os error 28)\n  help: the output needs"), "{errors}");
    assert!(!place.out.exists());
    let done = place.done();
    assert!(done > 0);
    assert!(mount(&disk.0, &["-o", "remount,ro"]));
    let (code, errors) = ended(place.compile().spawn().unwrap());
    assert!(code == Some(1) && errors.contains("Read-only file system (os error 30)"), "{errors}");
    assert!(mount(&disk.0, &["-o", &format!("remount,rw,size={}", 3 * expected.len())]));
    let (code, errors) = ended(place.compile().spawn().unwrap());
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.starts_with(&format!("{done} of ")), "{errors}");
    assert!(fs::read(place.out.join("weights.safetensors")).unwrap() == expected);
}

/// Serves a file, and puts a link to it in its place.
fn serve(file: &Path, at: &Path) -> Option<Mounted> {
    fs::create_dir(at).unwrap();
    let mounted = Mounted::new(at, vec![Served::new("file", fs::read(file).unwrap())]);
    let mounted = mounted.map_err(|reason| eprintln!("skipped: {reason}")).ok()?;
    fs::remove_file(file).unwrap();
    std::os::unix::fs::symlink(at.join("file"), file).unwrap();
    Some(mounted)
}

#[test]
fn a_disk_that_cannot_be_read_is_named_and_one_that_can_again_is_read_on() {
    let place = Place::new();
    let expected = place.undisturbed();
    let Some(mounted) = serve(&place.shard(), &place.temp.path().join("served")) else { return };
    mounted.files()[0].fail_from(5 << 20);
    let (code, errors) = ended(place.compile().spawn().unwrap());
    let said =
        format!("error: `{}` was cut off or cannot be read while it is in use\n", place.shard().display());
    assert!(code == Some(1) && errors.starts_with(&said), "{errors}");
    assert!(!place.out.exists());
    mounted.files()[0].fail_from(u64::MAX);
    let done = place.done();
    let (code, errors) = ended(place.compile().spawn().unwrap());
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(errors.starts_with(&format!("{done} of ")), done > 0, "{errors}");
    assert!(fs::read(place.out.join("weights.safetensors")).unwrap() == expected);
}

#[test]
fn weights_of_an_artifact_that_cannot_be_read_are_named() {
    let place = Place::new();
    assert_eq!(ended(place.compile().spawn().unwrap()).0, Some(0));
    let weights = place.out.join("weights.safetensors");
    let Some(mounted) = serve(&weights, &place.out.join("served")) else { return };
    let logits = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
        command.arg("logits").arg(&place.out).args(["--tokens", "1", "-o"]);
        let command = command.arg(place.temp.path().join("logits")).stderr(Stdio::piped());
        ended(command.spawn().unwrap())
    };
    mounted.files()[0].fail_from(1 << 20);
    let (code, errors) = logits();
    let said = format!("error: `{}` was cut off or cannot be read while it is in use\n", weights.display());
    assert!(code == Some(1) && errors.starts_with(&said), "{errors}");
    mounted.files()[0].fail_from(u64::MAX);
    assert_eq!(logits(), (Some(0), String::new()));
}
