//! Options of `fireq eval`.

use std::path::PathBuf;

use clap::Args;

use super::Executed;

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// The model.
    #[command(flatten)]
    pub model: Executed,
    /// The text to predict.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Tokens per window.
    #[arg(long, default_value_t = 512)]
    pub ctx: usize,
    /// Evaluate only the first N tokens of the text.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Compare with this model: an artifact, or the unquantized reference in a model directory.
    #[arg(long, value_name = "MODEL")]
    pub against: Option<PathBuf>,
    /// With --against, list the N predictions that diverge most; 0 lists none.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub worst: usize,
    /// Quantize one site at a time in the otherwise unquantized MODEL, a directory, and rank sites and layers by harm.
    #[arg(long, conflicts_with_all = ["against", "worst"])]
    pub by_site: bool,
    /// With --by-site, the pipeline whose lossy passes are tried patch by patch; weights, activations and KV caches by
    /// default.
    #[arg(long, value_name = "PIPELINE", requires = "by_site")]
    pub passes: Option<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}
