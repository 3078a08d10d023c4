//! Named pipelines: what recipes and the command line call by one word. Each step says why it stands where it does.

use fireq_ir::text::nearest;

use crate::error::RecipeError;

/// A named pipeline.
#[derive(Debug)]
pub struct NamedPipeline {
    /// The name on the command line.
    pub name: &'static str,
    /// What it gives, in a line.
    pub summary: &'static str,
    /// The steps in order, each with the reason for its place.
    pub steps: &'static [(&'static str, &'static str)],
}

impl NamedPipeline {
    /// The pipeline as text.
    pub fn text(&self) -> String {
        self.steps.iter().map(|(step, _)| *step).collect::<Vec<_>>().join(",")
    }
}

/// Every named pipeline of this version.
pub const PIPELINES: &[NamedPipeline] = &[
    NamedPipeline { name: "none", summary: "the model as it is", steps: &[] },
    NamedPipeline {
        name: "rtn",
        summary: "round to nearest: W4A8KV4 without calibration",
        steps: &[
            (
                "quantize-weights",
                "first: INT4 weights are what marks a linear as quantized for the next step",
            ),
            (
                "quantize-activations",
                "only where a linear has INT4 weights; the head keeps both its operands",
            ),
            (
                "quantize-kv",
                "depends on neither; last, it reads best in dumps: the linears stand as they stay",
            ),
        ],
    },
    NamedPipeline {
        name: "fireq",
        summary: "W4A8KV4 for calibration data, block by block",
        steps: &[(
            "blocks(smooth-rope-pre,fold-scales,smooth-rope-post,smooth-linears,fold-scales,quantize-kv{fit=clipped},\
             quantize-weights{method=gptq},quantize-activations)",
            "block by block, so that each makes up for errors before it. Scales of keys first, pairs before channels: what a \
             pair shares costs nothing once it is folded; those of linears are judged with keys as they will be. Then the \
             cache, so that weights make up for its errors, too; activations follow weights",
        )],
    },
    NamedPipeline {
        name: "clean",
        summary: "simpler, and the same to the bit",
        steps: &[(
            "fixpoint(canonicalize,push-layout,const-fold,cse,dce)",
            "each can make work for those before it; dce last, so that what the others leave behind is gone",
        )],
    },
    NamedPipeline {
        name: "fold",
        summary: "scales into the constants around them",
        steps: &[
            ("clean", "first: scales of scales and repeated values would only make the e-graphs larger"),
            ("fold-scales", "needs whole linears: merging and fusing hide the constants that scales go into"),
            ("clean", "last: norm weights that took a scale become constants again, and equal values one"),
        ],
    },
    NamedPipeline {
        name: "fuse",
        summary: "into the shape of the hardware: one operation where one kernel does it all",
        steps: &[
            (
                "merge-qkv",
                "before fuse-rope-scaling, which hides the way back from attention to the projections",
            ),
            ("merge-gate-up", "before fuse-linear-swiglu, which wants both halves in one product"),
            ("fuse-norm-quantize", "from here on as the data flows: these three touch different operations"),
            (
                "fuse-linear-swiglu",
                "before fuse-linear-add, which would take a product that has a better use",
            ),
            ("fuse-linear-add", "takes the linears before the residual stream"),
            ("fuse-rope-scaling", "after merge-qkv, see there"),
        ],
    },
    NamedPipeline {
        name: "full",
        summary: "everything: scales folded, rtn, and fused",
        steps: &[
            ("fold", "before quantizing: scales are rounded once, together with the weights that take them"),
            ("rtn", "before fusing: fused operations contain the quantizations"),
            ("fuse", "last: fused operations are opaque to all that comes before"),
        ],
    },
];

/// Recipes whose passes are not all there: names that mean something, and nothing else may take.
const PLANNED: [&str; 1] = ["paper"];

/// The pipeline of that name, for use as a recipe.
pub fn recipe(name: &str) -> Result<&'static NamedPipeline, RecipeError> {
    PIPELINES.iter().find(|r| r.name == name).ok_or_else(|| refuse(name))
}

fn refuse(name: &str) -> RecipeError {
    let names: Vec<&str> = PIPELINES.iter().map(|r| r.name).collect();
    let (name, available) = (name.to_string(), names.join(", "));
    if PLANNED.contains(&name.as_str()) {
        return RecipeError::Planned { name, available };
    }
    let hint = nearest(&name, names).unwrap_or_else(|| format!("there are: {available}"));
    RecipeError::Unknown { name, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_pipeline_is_one() {
        for named in PIPELINES {
            crate::pipeline(named.name).unwrap();
            assert!(named.steps.iter().all(|(_, why)| !why.is_empty()));
        }
    }

    #[test]
    fn no_pass_has_the_name_of_a_pipeline() {
        for named in PIPELINES {
            assert!(crate::PASSES.iter().all(|pass| pass.id != named.name));
        }
    }

    #[test]
    fn an_unknown_recipe_lists_those_there_are() {
        assert_eq!(recipe("rnt").unwrap_err().to_string(), "unknown recipe `rnt`; did you mean `rtn`?");
        let known = "there are: none, rtn, fireq, clean, fold, fuse, full";
        let message = recipe("awq-4bit").unwrap_err().to_string();
        assert_eq!(message, format!("unknown recipe `awq-4bit`; {known}"));
    }

    #[test]
    fn a_planned_recipe_is_known_and_refused() {
        for name in PLANNED {
            let message = recipe(name).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("recipe `{name}` is not available yet; there are: none, rtn"))
            );
        }
    }
}
