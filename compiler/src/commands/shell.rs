//! `fireq completions` and `fireq man`: made from the same description as the command line itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man as Page;

use crate::cli::{Cli, Completions, Man};
use crate::failure::{Failure, Outcome};

/// Prints what a shell reads to complete commands and options.
pub fn completions(options: &Completions) -> Outcome {
    let mut text = vec![];
    clap_complete::generate(options.shell, &mut Cli::command(), "fireq", &mut text);
    Ok(io::stdout().write_all(&text)?)
}

/// Prints the page of fireq, or writes that and those of its commands.
pub fn man(options: &Man) -> Outcome {
    let Some(dir) = &options.output else {
        return Ok(Page::new(Cli::command().disable_help_subcommand(true)).render(&mut io::stdout())?);
    };
    write(dir).map_err(|e| Failure::from_error(&e).within(format!("cannot write to `{}`", dir.display())))
}

fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
