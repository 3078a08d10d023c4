//! Options of `fireq inspect`.

use std::path::PathBuf;

use clap::Args;

use super::Import;

/// Options of `inspect`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Inspect {
    /// A model directory, its config.json alone for shapes without weights, an artifact, or a file of text IR.
    pub input: PathBuf,
    /// Print the graph as text IR.
    #[arg(long, conflicts_with_all = ["plan", "json", "dot", "html"])]
    pub ir: bool,
    /// Print the graph as Graphviz text.
    #[arg(long, conflicts_with_all = ["plan", "json", "html"])]
    pub dot: bool,
    /// Write a page that shows the graph, and with --passes what each pass makes of it.
    #[arg(long, value_name = "OUT.html", conflicts_with_all = ["plan", "json"])]
    pub html: Option<PathBuf>,
    /// Of an artifact: write a page that shows what its calibrated recipe did to each block.
    #[arg(long, value_name = "OUT.html", conflicts_with_all = ["ir", "dot", "html", "passes", "plan", "json"])]
    pub report: Option<PathBuf>,
    /// Of an artifact: list its kernels with shape, configuration, the reason for it and what they take of a GPU.
    #[arg(long, conflicts_with_all = ["ir", "dot", "html", "passes", "plan", "report"])]
    pub kernels: bool,
    /// Passes to run first, or a named pipeline.
    #[arg(long, conflicts_with = "json")]
    pub passes: Option<String>,
    /// Leave statistics of values out of the page.
    #[arg(long, requires = "html")]
    pub no_stats: bool,
    /// Print the launch plan.
    #[arg(long, conflicts_with = "json")]
    pub plan: bool,
    /// Print the summary as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// How a model directory is read.
    #[command(flatten)]
    pub import: Import,
}
