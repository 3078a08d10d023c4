//! Options of the commands that run passes: what is seen of them, and what happens when one fails.

use std::path::PathBuf;

use clap::Args;
use fireq::watch::{Print, WatchOptions};
use fireq_ir::{Pipeline, RunOptions};

use crate::failure::{Failure, Outcome};

/// How passes run and what is seen of them.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(next_help_heading = "Passes")]
pub struct Passes {
    /// Verify the graph after each patch. After each pass it always is.
    #[arg(long)]
    pub verify_each: bool,
    /// Run the graph before and after each pass on random data and fail when an output differs by more than the pass may.
    #[arg(long)]
    pub verify_numerics: bool,
    /// Print the IR to stderr before every pass, before those that change it, or before this one.
    #[arg(long, value_name = "all|changed|PASS")]
    pub print_ir_before: Option<String>,
    /// Print the IR to stderr after every pass, after those that change it, or after this one.
    #[arg(long, value_name = "all|changed|PASS")]
    pub print_ir_after: Option<String>,
    /// Write the IR after import and after each pass to numbered files in this directory, and pipeline.log.
    #[arg(long, value_name = "DIR")]
    pub dump_ir: Option<PathBuf>,
    /// Print patches, sizes and times of each pass to stderr.
    #[arg(long)]
    pub pass_timing: bool,
    /// Print each patch to stderr with why it is the way it is, such as the rules that moved a scale.
    #[arg(long)]
    pub explain: bool,
    /// Apply at most N patches in all.
    #[arg(long, value_name = "N")]
    pub stop_after: Option<usize>,
    /// Where a pass that fails leaves the graph and a line with its pipeline; `fireq opt` runs that file as it is.
    #[arg(long, value_name = "FILE", default_value = "fireq-reproducer.ir")]
    pub reproducer: PathBuf,
}

impl Passes {
    /// How the passes of a pipeline run.
    pub fn run_options(&self) -> RunOptions {
        RunOptions {
            limit: self.stop_after.unwrap_or(usize::MAX),
            verify_each: self.verify_each,
            explain: self.explain,
        }
    }

    /// What is watched; passes that are named must be in the pipeline.
    pub fn watch_options(&self, pipeline: &Pipeline) -> Outcome<WatchOptions> {
        Ok(WatchOptions {
            before: print("--print-ir-before", self.print_ir_before.as_ref(), pipeline)?,
            after: print("--print-ir-after", self.print_ir_after.as_ref(), pipeline)?,
            dump: self.dump_ir.clone(),
            numerics: self.verify_numerics,
            explain: self.explain,
        })
    }
}

fn print(option: &str, value: Option<&String>, pipeline: &Pipeline) -> Outcome<Print> {
    let ids: Vec<&str> = pipeline.passes().iter().map(|pass| pass.id()).collect();
    match value.map(String::as_str) {
        None => Ok(Print::Never),
        Some("all") => Ok(Print::All),
        Some("changed") => Ok(Print::Changed),
        Some(id) if ids.contains(&id) => Ok(Print::Pass(id.into())),
        Some(id) => Err(Failure::new(format!("{option} names `{id}`, which is not in the pipeline"))
            .hint(format!("give `all`, `changed` or one of: {}", ids.join(", ")))),
    }
}
