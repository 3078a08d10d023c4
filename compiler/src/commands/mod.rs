//! One file for each command, and what they share: opening models, printing, progress.

mod batch;
mod bench;
mod bisect;
mod by_site;
mod codes;
mod compile;
mod doctor;
mod dry_run;
mod eval;
mod export;
mod gpu_kernels;
mod inspect;
mod inspect_artifact;
mod logits;
mod open;
mod opt;
mod output;
mod partial;
mod passes;
mod pipeline;
mod quantized;
mod recipe;
#[cfg(feature = "llvm")]
mod reference;
mod run;
mod shell;
mod targets;
mod tune;
mod tuning;
mod worst;

use crate::cli::{Cli, Command};
use crate::failure::Outcome;

/// Runs the command that the line asks for.
pub fn dispatch(cli: Cli) -> Outcome {
    match cli.command {
        Command::Compile(options) => compile::compile(&options),
        Command::Export(options) => export::export(&options),
        Command::Run(options) => run::run(&options),
        Command::Logits(options) => logits::logits(&options),
        Command::Eval(options) => eval::eval(&options),
        Command::Opt(options) => opt::opt(&options),
        Command::Inspect(options) => inspect::inspect(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Tune(options) => tune::tune(&options),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Passes(options) => passes::passes(&options),
        Command::Completions(options) => shell::completions(&options),
        Command::Man(options) => shell::man(&options),
    }
}
