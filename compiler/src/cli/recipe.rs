//! Options that say how to quantize.

use clap::Args;

/// The recipe, or a pipeline instead.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// How to quantize: rtn (round to nearest), fireq (calibrated on a text), paper (its authors' constants), none, another
    /// named pipeline, or a file FILE.toml.
    #[arg(long, default_value = "rtn", value_name = "NAME|FILE.toml")]
    pub recipe: String,
    /// Print the recipe as TOML, all of it spelled out: a copy is where one of your own begins. Needs no MODEL.
    #[arg(long)]
    pub print_recipe: bool,
    /// Run this pipeline instead of the recipe's, such as 'a,b{opt=1}'.
    #[arg(long, conflicts_with = "print_recipe")]
    pub passes: Option<String>,
}
