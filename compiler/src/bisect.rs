//! The first patch after which something is wrong.

use std::fmt;
use std::io;
use std::process::{Command, Stdio};

use fireq_ir::interp::InterpError;
use fireq_ir::text::{print_lines, print_standalone};
use fireq_ir::{Applied, Graph, Observer, Pipeline, Ran, RunOptions, Stopped, ValueId};
use thiserror::Error;

use crate::numerics::difference;
use crate::reproducer::INLINE;

/// What must hold after every patch.
#[derive(Clone, Debug)]
pub enum Check {
    /// The outputs of each pass differ by no more than its effect allows.
    Numerics,
    /// This command of the shell succeeds; `{}` stands for a file with the IR.
    Command(String),
}

/// The first patch after which the check fails.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which patch it is, from 1.
    pub number: usize,
    /// The patches of all passes.
    pub of: usize,
    /// The pass that made it; none when the pass failed.
    pub pass: Option<String>,
    /// The patch; none when it was refused.
    pub patch: Option<Applied>,
    /// What is wrong after it.
    pub reason: String,
    removed: String,
    added: String,
}

/// Why no patch can be named.
#[derive(Debug, Error)]
pub enum BisectError {
    /// The check fails before any patch.
    #[error("the graph is wrong before the first patch: {0}")]
    WrongBefore(String),
    /// The graph cannot be run.
    #[error("the graph cannot be run on random data")]
    Run(#[from] InterpError),
    /// The command cannot be run.
    #[error("the command cannot be run")]
    Command(#[from] io::Error),
}

/// Finds the first patch of a pipeline after which `check` fails; `None` when it holds to the end. A pass that fails is
/// wrong, too. Between a good and a bad number of patches the middle is tried, so that `log n` runs are enough.
pub fn bisect(pipeline: &Pipeline, graph: &Graph, check: &Check) -> Result<Option<Found>, BisectError> {
    let wrong = |recorded: &Recorded| match (&recorded.failed, check) {
        (Some(reason), _) => Ok(Some(reason.clone())),
        (None, Check::Command(command)) => command_fails(command, &recorded.graph),
        (None, Check::Numerics) => numbers_differ(recorded),
    };
    let all = record(pipeline, graph, usize::MAX);
    let of = all.patches.len();
    let last = match (&all.failed, check) {
        (Some(reason), _) => Some((first_failing(pipeline, graph, of), reason.clone())),
        // Each pass may change numbers by an amount of its own, so they are compared pass by pass.
        (None, Check::Numerics) => first_wrong_pass(pipeline, graph, &all, &wrong)?,
        (None, Check::Command(_)) => wrong(&all)?.map(|reason| (of, reason)),
    };
    let Some((mut bad, mut reason)) = last else { return Ok(None) };
    if let Some(reason) = wrong(&record(pipeline, graph, 0))? {
        return Err(BisectError::WrongBefore(reason));
    }
    let mut good = 0;
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        match wrong(&record(pipeline, graph, middle))? {
            Some(found) => (bad, reason) = (middle, found),
            None => good = middle,
        }
    }
    let [before, after] = [good, bad].map(|n| record(pipeline, graph, n));
    Ok(Some(Found::new(&before, &after, bad, of.max(bad), reason)))
}

/// What is wrong after some patches, if anything.
type Wrong<'a> = &'a dyn Fn(&Recorded) -> Result<Option<String>, BisectError>;

/// A run of a pipeline that was stopped after some patches.
struct Recorded {
    graph: Graph,
    /// The graph before the last pass that changed something, and the error that it may make.
    before: (Graph, f64),
    /// Every patch with the pass that made it.
    patches: Vec<(String, Applied)>,
    /// Why the last pass failed, if it did.
    failed: Option<String>,
}

/// A number of patches at which a pass fails that has not told how many it would apply; `applied` are before it.
fn first_failing(pipeline: &Pipeline, graph: &Graph, applied: usize) -> usize {
    let fails = |ahead: &usize| record(pipeline, graph, applied + ahead).failed.is_some();
    applied + std::iter::successors(Some(1), |ahead| Some(ahead * 2)).find(fails).unwrap_or(1)
}

/// The number of patches after the first pass that is wrong, and why it is.
fn first_wrong_pass(
    pipeline: &Pipeline,
    graph: &Graph,
    all: &Recorded,
    wrong: Wrong<'_>,
) -> Result<Option<(usize, String)>, BisectError> {
    let pass = |n: usize| all.patches.get(n).map(|(pass, _)| pass);
    let ends = (1..=all.patches.len()).filter(|n| pass(*n) != pass(*n - 1));
    for end in ends {
        if let Some(reason) = wrong(&record(pipeline, graph, end))? {
            return Ok(Some((end, reason)));
        }
    }
    Ok(None)
}

struct Recorder {
    patches: Vec<(String, Applied)>,
    before: (Graph, f64),
}

impl Observer for Recorder {
    type Error = std::convert::Infallible;

    fn after(&mut self, ran: &Ran<'_>) -> Result<(), Self::Error> {
        if !ran.patches.is_empty() {
            self.before = (ran.before.clone(), ran.pass.effect().tolerance());
        }
        self.patches.extend(ran.patches.iter().map(|patch| (ran.pass.id().to_string(), patch.clone())));
        Ok(())
    }
}

fn record(pipeline: &Pipeline, graph: &Graph, limit: usize) -> Recorded {
    let mut recorder = Recorder { patches: vec![], before: (graph.clone(), 0.0) };
    let mut after = graph.clone();
    let options = RunOptions { limit, verify_each: false, explain: true };
    let failed = match pipeline.run_observed(&mut after, options, &mut recorder) {
        Ok(_) => None,
        Err(Stopped::Pass(failed)) => Some(format!("pass `{}` failed: {}", failed.pass, failed.source)),
        Err(Stopped::Observer(never)) => match never {},
    };
    Recorded { graph: after, before: recorder.before, patches: recorder.patches, failed }
}

fn numbers_differ(recorded: &Recorded) -> Result<Option<String>, BisectError> {
    let (before, allowed) = &recorded.before;
    let found = difference(before, &recorded.graph)?;
    Ok((found > *allowed)
        .then(|| format!("outputs differ by a relative error of {found:.3e}, allowed is {allowed:.0e}")))
}

fn command_fails(command: &str, graph: &Graph) -> Result<Option<String>, BisectError> {
    let file = tempfile::Builder::new().prefix("fireq-").suffix(".ir").tempfile()?;
    std::fs::write(file.path(), print_standalone(graph, INLINE))?;
    let line = command.replace("{}", &file.path().to_string_lossy());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(&line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = shell.status()?;
    Ok((!status.success()).then(|| format!("the command fails: {status}")))
}

impl Found {
    fn new(before: &Recorded, after: &Recorded, number: usize, of: usize, reason: String) -> Self {
        let (pass, patch) = after.patches.get(number - 1).cloned().unzip();
        let removed = surroundings(&before.graph, &after.graph, '-');
        let added = surroundings(&after.graph, &before.graph, '+');
        Found { number, of, pass, patch, reason, removed, added }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "patch {} of {}", self.number, self.of)?;
        if let (Some(pass), Some(patch)) = (&self.pass, &self.patch) {
            writeln!(f, ": {pass}: {}", patch.site)?;
            patch.notes.iter().try_for_each(|note| writeln!(f, "    {note}"))?;
        } else {
            writeln!(f, ", which was not applied")?;
        }
        writeln!(f, "{}\n\nbefore it\n{}\nafter it\n{}", self.reason, self.removed, self.added)
    }
}

/// The lines of `graph` that `other` does not have, marked, and those next to them.
fn surroundings(graph: &Graph, other: &Graph, mark: char) -> String {
    let same = |value: &ValueId| {
        other.contains(*value)
            && other.op(*value) == graph.op(*value)
            && other.operands(*value) == graph.operands(*value)
    };
    let schedule = graph.schedule();
    let changed: Vec<ValueId> = schedule.iter().copied().filter(|value| !same(value)).collect();
    let near = |value: &ValueId| {
        changed.iter().any(|c| graph.operands(*c).contains(value) || graph.operands(*value).contains(c))
    };
    let lines = schedule.iter().zip(print_lines(graph));
    let shown = lines.filter_map(|(value, line)| match (changed.contains(value), near(value)) {
        (true, _) => Some(format!("{mark} {line}\n")),
        (false, true) => Some(format!("  {line}\n")),
        _ => None,
    });
    let shown: String = shown.collect();
    if shown.is_empty() { "  nothing that differs\n".into() } else { shown }
}
