//! `fireq opt --bisect`: the first patch after which something is wrong.

use std::process::{Command, Stdio};

use fireq::numerics::difference;
use fireq_ir::text::{print_graph_with, print_lines};
use fireq_ir::{Applied, Graph, Observer, Pipeline, Ran, RunOptions, Stopped, ValueId};

use super::output::emit;
use crate::failure::{Failure, Outcome};

/// What is wrong with a graph after some patches, if anything.
type Wrong<'a> = &'a dyn Fn(&Recorded) -> Outcome<Option<String>>;

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

/// Prints the first patch after which the graph is wrong: after which `command` fails, or outputs are off.
pub fn bisect(pipeline: &Pipeline, graph: &Graph, command: Option<&str>) -> Outcome {
    let wrong = |recorded: &Recorded| match (&recorded.failed, command) {
        (Some(reason), _) => Ok(Some(reason.clone())),
        (None, Some(command)) => command_fails(command, &recorded.graph),
        (None, None) => numbers_differ(recorded),
    };
    let all = record(pipeline, graph, usize::MAX);
    let patches = all.patches.len();
    let last = match (&all.failed, command) {
        (Some(reason), _) => Some((first_failing(pipeline, graph, patches), reason.clone())),
        // Each pass may change numbers by an amount of its own, so they are compared pass by pass.
        (None, None) => first_wrong_pass(pipeline, graph, &all, &wrong)?,
        (None, Some(_)) => wrong(&all)?.map(|reason| (patches, reason)),
    };
    let Some((mut bad, mut reason)) = last else {
        return Err(Failure::new(format!("nothing is wrong after all {patches} patches"))
            .hint("--bisect-command takes any check; --verify-numerics prints the errors of each pass"));
    };
    if let Some(reason) = wrong(&record(pipeline, graph, 0))? {
        return Err(Failure::new("the graph is wrong before the first patch").within(reason));
    }
    let mut good = 0;
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        match wrong(&record(pipeline, graph, middle))? {
            Some(found) => (bad, reason) = (middle, found),
            None => good = middle,
        }
    }
    let (before, after) = (record(pipeline, graph, good), record(pipeline, graph, bad));
    emit(&report(&before.graph, &after, bad, patches, &reason))
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
) -> Outcome<Option<(usize, String)>> {
    let ends = (1..=all.patches.len()).filter(|n| {
        let pass = |n: usize| all.patches.get(n).map(|(pass, _)| pass);
        pass(*n) != pass(*n - 1)
    });
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
    let options = RunOptions { limit, verify_each: true };
    let failed = match pipeline.run_observed(&mut after, options, &mut recorder) {
        Ok(_) => None,
        Err(Stopped::Pass(failed)) => Some(format!("pass `{}` failed: {}", failed.pass, failed.source)),
        Err(Stopped::Observer(never)) => match never {},
    };
    Recorded { graph: after, before: recorder.before, patches: recorder.patches, failed }
}

fn numbers_differ(recorded: &Recorded) -> Outcome<Option<String>> {
    let (before, allowed) = &recorded.before;
    let found = difference(before, &recorded.graph).map_err(fireq::watch::WatchError::from)?;
    Ok((found > *allowed)
        .then(|| format!("outputs differ by a relative error of {found:.3e}, allowed is {allowed:.0e}")))
}

fn command_fails(command: &str, graph: &Graph) -> Outcome<Option<String>> {
    let file = tempfile::Builder::new().prefix("fireq-").suffix(".ir").tempfile()?;
    std::fs::write(file.path(), print_graph_with(graph, 1 << 14))?;
    let line = command.replace("{}", &file.path().to_string_lossy());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(&line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let fail = |e| Failure::from_error(&e).within(format!("cannot run `sh -c '{line}'`"));
    let status = shell.status().map_err(fail)?;
    Ok((!status.success()).then(|| format!("the command fails: {status}")))
}

/// The patch, and the values that it took away and brought, with those that they read and that read them.
fn report(before: &Graph, after: &Recorded, number: usize, of: usize, reason: &str) -> String {
    let (pass, patch) = match after.patches.get(number - 1) {
        Some((pass, patch)) => (pass.as_str(), patch.site.as_str()),
        None => ("the pass that fails", "before it applied a patch"),
    };
    let notes: String = after.patches.get(number - 1).map_or_else(String::new, |(_, patch)| {
        patch.notes.iter().map(|note| format!("    {note}\n")).collect()
    });
    let (removed, added) = (surroundings(before, &after.graph, '-'), surroundings(&after.graph, before, '+'));
    format!(
        "patch {number} of {of}: {pass}: {patch}\n{notes}{reason}\n\nbefore it\n{removed}\nafter it\n{added}"
    )
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
