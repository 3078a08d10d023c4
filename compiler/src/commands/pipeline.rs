//! Running a pipeline under the eyes of the command line, and what a failure leaves behind.

use fireq::reproducer;
use fireq::watch::{Line, Watch, WatchError};
use fireq_ir::text::print_graph;
use fireq_ir::{Failed, Graph, Pipeline, Stopped};

use crate::cli;
use crate::failure::{Failure, Outcome};

/// Runs a pipeline on a graph, and then `last`, which may dump once more. Returns what each pass did.
pub fn run<T>(
    options: &cli::passes::Passes,
    pipeline: &Pipeline,
    graph: &mut Graph,
    last: impl FnOnce(&Watch<'_>, &Graph) -> Outcome<T>,
) -> Outcome<(Vec<Line>, T)> {
    let watched = options.watch_options(pipeline)?;
    let mut stderr = std::io::stderr();
    let mut watch = Watch::new(&watched, graph, &mut stderr)?;
    let result = pipeline.run_observed(graph, options.run_options(), &mut watch);
    if options.pass_timing {
        eprint!("{}", watch.table());
    }
    match result {
        Ok(_) => {
            let made = last(&watch, graph)?;
            Ok((watch.lines, made))
        }
        Err(Stopped::Pass(failed)) => {
            watch.dump_next(&format!("{}-failed", failed.pass), || failed_text(&failed))?;
            let reason = format!("pass `{}` failed: {}", failed.pass, failed.source);
            Err(leave(options, Failure::from_error(&*failed), &failed.pipeline, &reason, &failed.before))
        }
        Err(Stopped::Observer(error)) => Err(observed(options, error)),
    }
}

/// The graph as the pass left it, valid or not.
fn failed_text(failed: &Failed) -> String {
    let reason: String = failed.source.to_string().lines().map(|line| format!("// {line}\n")).collect();
    format!("// pass `{}` failed\n{reason}{}", failed.pass, print_graph(&failed.after))
}

fn observed(options: &cli::passes::Passes, error: WatchError) -> Failure {
    match error {
        WatchError::Numerics { ref pipeline, ref before, .. } => {
            leave(options, Failure::from_error(&error), pipeline, &error.to_string(), before)
        }
        error => error.into(),
    }
}

/// Writes the reproducer and says where it is.
fn leave(
    options: &cli::passes::Passes,
    failure: Failure,
    pipeline: &str,
    reason: &str,
    before: &Graph,
) -> Failure {
    let path = &options.reproducer;
    match reproducer::write(path, pipeline, reason, before) {
        Ok(()) => failure.hint(format!("`fireq opt {}` runs the pass on its graph again", path.display())),
        Err(error) => failure.hint(format!(
            "the reproducer could not be written to `{}` ({error}); --reproducer gives another place",
            path.display()
        )),
    }
}
