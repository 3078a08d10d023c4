//! Named pipelines: what the command line and other pipelines call by one word, recipes among them. Each step says why it
//! stands where it does.

use fireq_ir::text::nearest;

use crate::error::RecipeError;
use crate::recipe::RECIPES;

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

/// Every named pipeline that is not a recipe.
pub const PIPELINES: &[NamedPipeline] = &[
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
            ("fuse-linear-bias", "after merging, which puts biases of several linears end to end"),
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

/// The pipeline that a name stands for, as text: that of a recipe, or a named one.
pub fn named_pipeline(name: &str) -> Result<String, RecipeError> {
    find(name).ok_or_else(|| {
        let hint = nearest(name, names()).unwrap_or_else(|| {
            format!("there are: {}, and files that end in .toml", names().collect::<Vec<_>>().join(", "))
        });
        RecipeError { name: name.into(), hint }
    })
}

/// The same, where there is one.
pub(crate) fn find(name: &str) -> Option<String> {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name);
    let named = || PIPELINES.iter().find(|pipeline| pipeline.name == name);
    recipe.map(|recipe| recipe.recipe().pipeline()).or_else(|| named().map(NamedPipeline::text))
}

/// Every name that stands for a pipeline.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    RECIPES.iter().map(|recipe| recipe.name).chain(PIPELINES.iter().map(|pipeline| pipeline.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_pipeline() {
        for name in names() {
            crate::pipeline(name).unwrap();
        }
        assert!(PIPELINES.iter().flat_map(|named| named.steps).all(|(_, why)| !why.is_empty()));
    }

    #[test]
    fn no_two_things_have_one_name() {
        for name in names() {
            assert!(crate::PASSES.iter().all(|pass| pass.id != name));
            assert_eq!(names().filter(|other| *other == name).count(), 1);
        }
    }

    #[test]
    fn an_unknown_recipe_lists_those_there_are() {
        let message = |name| named_pipeline(name).unwrap_err().to_string();
        assert_eq!(message("rnt"), "unknown recipe `rnt`; did you mean `rtn`?");
        let known =
            "there are: none, rtn, fireq, paper, clean, fold, fuse, full, and files that end in .toml";
        assert_eq!(message("awq-4bit"), format!("unknown recipe `awq-4bit`; {known}"));
    }
}
