//! The project's own commands, run as `cargo xtask <command>`. Needs no LLVM to build: it is what installs it.

mod demo;
mod fuzz;
mod new_pass;
mod random_model;
mod run;
mod setup;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building needs (Debian and Ubuntu, as root), or say what to install.
    Setup,
    /// Everything that CI checks: format, lints, tests, documentation.
    Test,
    /// Compile the bundled model, tell a story with it, and measure both.
    Demo,
    /// Accept what file tests print now as their snapshots.
    Bless {
        /// Only cases whose path contains this.
        filter: Option<String>,
    },
    /// Look for texts that break a parser, guided by coverage: needs cargo-fuzz.
    Fuzz {
        /// What to fuzz; without it each in turn.
        #[arg(value_parser = fuzz::TARGETS)]
        target: Option<String>,
        /// How long each target is fuzzed.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Create a pass: its file, its row in the table, a case that fires and one that must not.
    NewPass {
        /// Its id, such as fold-norm-weights.
        name: String,
    },
    /// Write a checkpoint with random bf16 weights for a config.json.
    RandomModel {
        /// The model's config.json.
        #[arg(long)]
        config: PathBuf,
        /// The directory to write.
        #[arg(short, long)]
        output: PathBuf,
        /// Seed of the weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The most gibibytes of tensors in one file.
        #[arg(long, default_value_t = 4)]
        shard_gib: u64,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::setup(),
        Command::Test => test::test(),
        Command::Demo => demo::demo(),
        Command::Bless { filter } => test::bless(filter),
        Command::Fuzz { target, seconds } => fuzz::fuzz(target.as_deref(), seconds),
        Command::NewPass { name } => new_pass::new_pass(&name),
        Command::RandomModel { config, output, seed, shard_gib } => {
            random_model::write(&config, &output, seed, shard_gib << 30)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
