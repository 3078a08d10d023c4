//! Passes over graphs, the pipelines they form, and the recipes that name pipelines.
//!
//! A pass is a file is an id is a folder of test cases: `quantize_kv.rs`, `quantize-kv`, `tests/ir/quantize-kv/*.ir`.
//! [`PASSES`] is the one table of them; [`pipeline()`] reads `a,b{option=value}`.

mod cse;
mod error;
mod glob;
mod pipeline;
mod quantize_activations;
mod quantize_kv;
mod quantize_weights;
mod recipe;
mod table;

pub use error::{PipelineError, RecipeError};
pub use pipeline::{Options, pipeline};
pub use recipe::{RECIPES, Recipe, recipe};
pub use table::{OptionInfo, PASSES, PassInfo};
