//! Passes over graphs, the pipelines they form, and the recipes that name pipelines.
//!
//! A pass is a file is an id is a folder of test cases: `quantize_kv.rs`, `quantize-kv`, `tests/ir/quantize-kv/*.ir`.
//! [`PASSES`] is the one table of them; [`pipeline()`] reads `a,b{option=value}`.

mod canonicalize;
mod const_fold;
mod cse;
mod dce;
mod error;
mod fold_norm_weights;
mod fold_scales;
mod fuse_linear_add;
mod fuse_linear_swiglu;
mod fuse_norm_quantize;
mod fuse_rope_scaling;
mod glob;
mod merge;
mod merge_gate_up;
mod merge_qkv;
mod named;
mod options;
mod pattern;
mod pipeline;
mod push_layout;
mod quantize_activations;
mod quantize_kv;
mod quantize_weights;
mod scales;
mod table;

pub use error::{PipelineError, RecipeError};
pub use named::{NamedPipeline, PIPELINES, recipe};
pub use options::Options;
pub use pipeline::pipeline;
pub use scales::scale_rules;
pub use table::{OptionInfo, PASSES, PassInfo};

/// What `cargo xtask new-pass` starts from.
#[cfg(test)]
#[path = "../../tests/xtask/templates/pass.rs"]
mod new_pass;

#[cfg(test)]
mod tests {
    use fireq_ir::{Pipeline, Step, text};

    #[test]
    fn new_passes_start_from_one_that_works() {
        let mut graph = text::parse_and_verify(include_str!("../../tests/xtask/templates/fires.ir")).unwrap();
        let pipeline = Pipeline(vec![Step::Pass(Box::new(super::new_pass::NewPass), "new-pass".into())]);
        assert_eq!(pipeline.run(&mut graph).unwrap(), 2);
        assert_eq!(pipeline.run(&mut graph).unwrap(), 0);
    }
}
