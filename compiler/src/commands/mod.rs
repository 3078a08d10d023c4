//! One file for each command, and what they share: opening models, printing, progress.

mod doctor;
mod eval;
mod inspect;
mod logits;
mod open;
mod output;

use crate::cli::{Cli, Command};
use crate::failure::{Failure, Outcome};

/// Runs the command that the line asks for.
pub fn dispatch(cli: Cli) -> Outcome {
    match cli.command {
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Inspect(options) => inspect::inspect(&options),
        Command::Logits(options) => logits::logits(&options),
        Command::Eval(options) => eval::eval(&options),
        _ => Err(Failure::new("this command is not supported by this build yet")),
    }
}
