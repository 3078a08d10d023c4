//! Passes over graphs, the pipelines they form, and the recipes that pipelines are written as.
//!
//! A recipe is TOML and stands for the text of a pipeline ([`Recipe::pipeline`]), which is what runs and what artifacts record.
//!
//! A pass is a file is an id is a folder of test cases: `quantize_kv.rs`, `quantize-kv`, `tests/ir/quantize-kv/*.ir`.
//! [`PASSES`] is the one table of them; [`pipeline()`] reads `a,b{option=value}`.

mod blocks;
mod by_name;
mod calibration;
mod canonicalize;
mod const_fold;
mod cse;
mod dce;
mod error;
pub mod findings;
mod fold_norm_weights;
mod fold_scales;
mod fuse_linear_add;
mod fuse_linear_bias;
mod fuse_linear_swiglu;
mod fuse_norm_quantize;
mod fuse_rope_scaling;
mod glob;
mod journal;
mod left;
mod merge;
mod merge_gate_up;
mod merge_qkv;
mod named;
mod options;
mod pattern;
mod piece;
mod pipeline;
mod push_layout;
mod quantize_activations;
mod quantize_head;
mod quantize_kv;
mod quantize_weights;
pub mod random;
mod recipe;
mod scales;
mod sites;
mod smooth;
mod smooth_linears;
mod smooth_rope_post;
mod smooth_rope_pre;
mod table;
mod weights;

pub use calibration::{Calibration, Interpreter, Prepared, RunError, Runner};
pub use error::{PipelineError, RecipeError};
pub use journal::{Finished, Journal, Resumed};
pub use named::{NamedPipeline, PIPELINES, named_pipeline};
pub use options::Options;
pub use pipeline::{pipeline, pipeline_with};
pub use random::tokens;
pub use recipe::{BuiltIn, RECIPES, Recipe};
pub use scales::scale_rules;
pub use smooth::COMPARED;
pub use smooth::sample::ROWS as COMPARED_ROWS;
pub use table::{OptionInfo, PASSES, PassInfo};
pub use weights::WINDOW as COMPENSATED;

/// What `cargo xtask new-pass` starts from.
#[cfg(test)]
#[path = "../../tests/xtask/templates/pass.rs"]
mod new_pass;

#[cfg(test)]
mod tests {
    use fireq_ir::text::{parse_and_verify, print_graph};

    #[test]
    fn new_passes_start_from_one_that_works() {
        let fires = |text: &str| {
            let graph = parse_and_verify(text).unwrap();
            graph.schedule().into_iter().filter_map(|v| super::new_pass::site(&graph, v)).count()
        };
        let case = include_str!("../../tests/xtask/templates/fires.ir");
        assert_eq!(fires(case), 1);
        assert_eq!(fires(include_str!("../../tests/xtask/templates/must-not-fire.ir")), 0);
        let mut graph = parse_and_verify(case).unwrap();
        let value = graph.outputs[0];
        let patch = super::new_pass::site(&graph, value).unwrap().unwrap();
        graph.apply(patch, &mut fireq_ir::Moved::new()).unwrap();
        assert_eq!(fires(&print_graph(&graph)), 0);
    }
}
