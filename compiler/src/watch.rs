//! What a user sees of a pipeline while it runs: IR before and after passes, dumps, times, numbers checked.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fireq_ir::interp::InterpError;
use fireq_ir::text::print_graph;
use fireq_ir::{Graph, Observer, Pass, Ran};
use thiserror::Error;

use crate::numerics::{OutputError, compare};

/// After or before which passes the IR is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Print {
    /// None.
    #[default]
    Never,
    /// Every pass.
    All,
    /// Every pass that changed something.
    Changed,
    /// The pass of this id.
    Pass(String),
}

impl Print {
    fn wants(&self, pass: &dyn Pass, changed: bool) -> bool {
        match self {
            Print::Never => false,
            Print::All => true,
            Print::Changed => changed,
            Print::Pass(id) => id == pass.id(),
        }
    }
}

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// When the IR is printed before a pass.
    pub before: Print,
    /// When the IR is printed after a pass.
    pub after: Print,
    /// Where numbered files of IR go, and `pipeline.log`.
    pub dump: Option<PathBuf>,
    /// Whether graphs are run before and after each pass and compared.
    pub numerics: bool,
    /// Whether every patch is printed with its notes.
    pub explain: bool,
}

/// Why watching stopped a pipeline.
#[derive(Debug, Error)]
pub enum WatchError {
    /// A file could not be written.
    #[error("cannot write `{}`", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be printed any more.
    #[error(transparent)]
    Print(#[from] io::Error),
    /// The graph cannot be run.
    #[error("the graph cannot be run on random data")]
    Run(#[from] InterpError),
    /// A pass changed the numbers by more than its effect allows.
    #[error("pass `{pass}`: outputs differ by a relative error of {found:.3e}, allowed is {allowed:.3e}")]
    Numerics {
        /// Its id.
        pass: String,
        /// The pass with its options, as a pipeline.
        pipeline: String,
        /// The relative L2 error.
        found: f64,
        /// The tolerance of the pass's effect.
        allowed: f64,
        /// The graph before it.
        before: Box<Graph>,
    },
}

/// One pass that ran.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its id.
    pub pass: String,
    /// Patches applied.
    pub patches: usize,
    /// Values before and after.
    pub nodes: (usize, usize),
    /// Seconds, verification included.
    pub seconds: f64,
}

/// Watches a pipeline; prints to `out`.
pub struct Watch<'a> {
    options: &'a WatchOptions,
    out: &'a mut dyn Write,
    /// The passes that ran, in order.
    pub lines: Vec<Line>,
    printed: Option<String>,
}

impl<'a> Watch<'a> {
    /// Starts watching; the graph as it is now becomes the first dump.
    pub fn new(options: &'a WatchOptions, graph: &Graph, out: &'a mut dyn Write) -> Result<Self, WatchError> {
        let watch = Watch { options, out, lines: vec![], printed: None };
        watch.dump(0, "import", || print_graph(graph))?;
        Ok(watch)
    }

    /// Writes one more numbered file of IR, after those of all passes; nothing without a folder for dumps.
    pub fn dump_next(&self, stage: &str, text: impl FnOnce() -> String) -> Result<(), WatchError> {
        self.dump(self.lines.len() + 1, stage, text)
    }

    fn dump(&self, number: usize, stage: &str, text: impl FnOnce() -> String) -> Result<(), WatchError> {
        let Some(dir) = &self.options.dump else { return Ok(()) };
        write(&dir.join(format!("{number:02}-{stage}.ir")), &text())
    }

    /// A table of the passes that ran.
    pub fn table(&self) -> String {
        table(&self.lines)
    }

    fn check(&mut self, ran: &Ran<'_>) -> Result<(), WatchError> {
        if !self.options.numerics || ran.patches.is_empty() {
            return Ok(());
        }
        let allowed = ran.pass.effect().tolerance();
        for (n, OutputError { max, l2 }) in compare(ran.before, ran.after)?.into_iter().enumerate() {
            let id = ran.pass.id();
            writeln!(
                self.out,
                "numerics: {id}: output {n}: max {max:.3e}, relative L2 {l2:.3e}, allowed {allowed:.0e}"
            )?;
            if l2 > allowed {
                let before = Box::new(ran.before.clone());
                let pipeline = ran.text.into();
                return Err(WatchError::Numerics { pass: id.into(), pipeline, found: l2, allowed, before });
            }
        }
        Ok(())
    }
}

impl Observer for Watch<'_> {
    type Error = WatchError;

    fn before(&mut self, pass: &dyn Pass, graph: &Graph) -> Result<(), WatchError> {
        match &self.options.before {
            // Whether the pass changes something is known when it has run.
            Print::Changed => self.printed = Some(print_graph(graph)),
            print if print.wants(pass, false) => {
                writeln!(self.out, "// before {}\n{}", pass.id(), print_graph(graph))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn after(&mut self, ran: &Ran<'_>) -> Result<(), WatchError> {
        let (id, patches) = (ran.pass.id(), ran.patches.len());
        self.lines.push(Line {
            pass: id.into(),
            patches,
            nodes: (ran.before.len(), ran.after.len()),
            seconds: ran.time.as_secs_f64(),
        });
        if let Some(text) = self.printed.take().filter(|_| patches > 0) {
            writeln!(self.out, "// before {id}\n{text}")?;
        }
        if self.options.after.wants(ran.pass, patches > 0) {
            writeln!(self.out, "// after {id}: {patches} patches\n{}", print_graph(ran.after))?;
        }
        for patch in ran.patches.iter().filter(|_| self.options.explain) {
            writeln!(self.out, "{id}: {}", patch.site)?;
            patch.notes.iter().try_for_each(|note| writeln!(self.out, "    {note}"))?;
        }
        self.dump(self.lines.len(), id, || print_graph(ran.after))?;
        if let Some(dir) = &self.options.dump {
            write(&dir.join("pipeline.log"), &self.table())?;
        }
        self.check(ran)
    }
}

fn table(lines: &[Line]) -> String {
    let head =
        format!("{:>3}  {:<24} {:>8} {:>8} {:>8} {:>10}\n", "#", "pass", "patches", "before", "after", "ms");
    let row = |(n, line): (usize, &Line)| {
        let (before, after) = line.nodes;
        let ms = line.seconds * 1e3;
        format!("{:>3}  {:<24} {:>8} {before:>8} {after:>8} {ms:>10.3}\n", n + 1, line.pass, line.patches)
    };
    head + &lines.iter().enumerate().map(row).collect::<String>()
}

fn write(path: &Path, text: &str) -> Result<(), WatchError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(dir).and_then(|()| fs::write(path, text));
    written.map_err(|source| WatchError::Dump { path: path.into(), source })
}
