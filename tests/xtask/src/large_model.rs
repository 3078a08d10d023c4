//! `cargo xtask large-model`: compiles a checkpoint that no disk here could hold, and says what that takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clap::Args;
use xtask::random_model::{CONFIG, Checkpoint, INDEX};
use xtask::served::{Mounted, Served};

use crate::run::{command, release_dir, run};

#[derive(Args)]
pub struct Options {
    /// The model's config.json.
    #[arg(long)]
    config: PathBuf,
    /// Where the artifact is written, and removed from in the end: a quarter of the checkpoint's size.
    #[arg(long)]
    folder: PathBuf,
    /// Layers, if not as many as the configuration says.
    #[arg(long)]
    layers: Option<u64>,
    /// The recipe.
    #[arg(long, default_value = "rtn")]
    recipe: String,
    /// Threads that compile; all by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Kill it when so much of the checkpoint is read, and go on.
    #[arg(long, value_name = "PERCENT")]
    kill_at: Option<u64>,
    /// Leave the artifact where it is.
    #[arg(long)]
    keep: bool,
}

/// What a process was seen to take.
#[derive(Default)]
struct Taken {
    /// Peak bytes that are resident: in all, of the process's own, of mapped files.
    resident: [u64; 3],
    /// Bytes that it wrote to files.
    written: u64,
}

const FIELDS: [&str; 3] = ["VmHWM:", "RssAnon:", "RssFile:"];

/// Serves the checkpoint, compiles it with the release build, and looks at the artifact.
pub fn large_model(options: &Options) -> Result<(), String> {
    run(&mut command(&["cargo", "build", "-q", "--release", "-p", "fireq"]))?;
    let io = |e: std::io::Error| format!("{}: {e}", options.folder.display());
    fs::create_dir_all(&options.folder).map_err(io)?;
    let (place, out) = (options.folder.join("served"), options.folder.join("large.fireq"));
    fs::create_dir_all(&place).map_err(io)?;
    let checkpoint = Checkpoint::read(&options.config, 0, 4 << 30, options.layers)?;
    let total: u64 = checkpoint.shards.iter().map(xtask::random_model::Shard::len).sum();
    println!("{} shards of {:.1} GB in all, made while they are read", checkpoint.shards.len(), giga(total));
    let mounted = mount(&place, checkpoint)?;
    if let Some(percent) = options.kill_at {
        watch(options, &out, &mounted, Some(total / 100 * percent))?;
    }
    watch(options, &out, &mounted, None)?;
    let size: u64 = sizes(&out).map_err(io)?;
    println!("artifact: {:.2} GB", giga(size));
    let began = Instant::now();
    run(Command::new(release_dir().join("fireq")).arg("inspect").arg(&out))?;
    println!("looked at in {:.1} s, hashes compared", began.elapsed().as_secs_f64());
    drop(mounted);
    fs::remove_dir(&place).map_err(io)?;
    if options.keep { Ok(()) } else { fs::remove_dir_all(&out).map_err(io) }
}

fn mount(place: &Path, checkpoint: Checkpoint) -> Result<Mounted, String> {
    let texts = [(CONFIG, checkpoint.config), (INDEX, checkpoint.index)];
    let texts = texts.map(|(name, text)| Served::new(name, text.into_bytes()));
    let shards = checkpoint.shards.into_iter().map(|shard| Served::new(&shard.name.clone(), shard));
    Mounted::new(place, texts.into_iter().chain(shards).collect())
}

/// Compiles, up to some bytes that are read or to the end, and prints what it took.
fn watch(options: &Options, out: &Path, mounted: &Mounted, until: Option<u64>) -> Result<(), String> {
    let mut compile = Command::new(release_dir().join("fireq"));
    compile.arg("compile").arg(options.folder.join("served")).arg("-o").arg(out);
    compile.args(["--recipe", &options.recipe]);
    compile.args(options.threads.iter().flat_map(|n| ["--threads".to_string(), n.to_string()]));
    let read = || mounted.files().iter().map(Served::bytes_read).sum::<u64>();
    let (before, began) = (read(), Instant::now());
    let mut child = compile.spawn().map_err(|e| e.to_string())?;
    let mut taken = Taken::default();
    let status = loop {
        taken.look(&child);
        if until.is_some_and(|bytes| read() - before >= bytes) {
            child.kill().map_err(|e| e.to_string())?;
        }
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let (seconds, read) = (began.elapsed().as_secs_f64(), read() - before);
    let [all, own, mapped] = taken.resident.map(|bytes| bytes >> 20);
    println!(
        "{} after {seconds:.1} s: read {:.1} GB ({:.0} MB/s), wrote {:.2} GB ({:.0} MB/s); peak {all} MiB resident \
         ({own} MiB its own, {mapped} MiB of mapped files)",
        if until.is_some() { "killed" } else { "done" },
        giga(read),
        read as f64 / 1e6 / seconds,
        giga(taken.written),
        taken.written as f64 / 1e6 / seconds,
    );
    if status.success() || until.is_some() { Ok(()) } else { Err(format!("it failed: {status}")) }
}

impl Taken {
    fn look(&mut self, child: &Child) {
        let file = |name| fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap_or_default();
        let number = |text: &str, field: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let (status, io) = (file("status"), file("io"));
        for (peak, field) in self.resident.iter_mut().zip(FIELDS) {
            *peak = (*peak).max(number(&status, field) << 10);
        }
        self.written = self.written.max(number(&io, "wchar:"));
    }
}

/// Bytes of all files below a directory.
fn sizes(dir: &Path) -> std::io::Result<u64> {
    fs::read_dir(dir)?.try_fold(0, |sum, entry| {
        let path = entry?.path();
        Ok(sum + if path.is_dir() { sizes(&path)? } else { path.metadata()?.len() })
    })
}

fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
