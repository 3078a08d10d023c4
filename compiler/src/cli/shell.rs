//! Options of what helps shells and their users: `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell: `fireq completions bash > ~/.local/share/bash-completion/completions/fireq`.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for fireq and one for each command to this folder, such as ~/.local/share/man/man1.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}
