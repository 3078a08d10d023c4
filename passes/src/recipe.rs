//! Recipes: named pipelines.

use fireq_ir::text::nearest;
use thiserror::Error;

/// A named pipeline.
#[derive(Debug)]
pub struct Recipe {
    /// The name on the command line.
    pub name: &'static str,
    /// What it gives, in a line.
    pub summary: &'static str,
    /// The passes, in order.
    pub passes: &'static str,
}

/// Every recipe of this version.
pub const RECIPES: &[Recipe] = &[
    Recipe { name: "none", summary: "the model as it is", passes: "" },
    Recipe {
        name: "rtn",
        summary: "round to nearest: W4A8KV4 without calibration",
        // Weights first: activations are quantized where a linear has INT4 weights. The cache last, since it depends
        // on neither and reads best in a dump that already shows the linears as they stay.
        passes: "quantize-weights,quantize-activations,quantize-kv",
    },
];

/// There is no such recipe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown recipe `{name}`{}", .hint.as_ref().map_or_else(String::new, |h| format!("; {h}")))]
pub struct RecipeError {
    /// The name.
    pub name: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

/// The recipe of that name.
pub fn recipe(name: &str) -> Result<&'static Recipe, RecipeError> {
    RECIPES.iter().find(|r| r.name == name).ok_or_else(|| {
        let names: Vec<&str> = RECIPES.iter().map(|r| r.name).collect();
        let hint = nearest(name, names.iter().copied())
            .unwrap_or_else(|| format!("there are: {}", names.join(", ")));
        RecipeError { name: name.into(), hint: Some(hint) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_a_pipeline() {
        for recipe in RECIPES {
            crate::pipeline(recipe.passes).unwrap();
        }
    }

    #[test]
    fn an_unknown_recipe_lists_those_there_are() {
        assert_eq!(recipe("rnt").unwrap_err().to_string(), "unknown recipe `rnt`; did you mean `rtn`?");
        assert_eq!(
            recipe("awq-4bit").unwrap_err().to_string(),
            "unknown recipe `awq-4bit`; there are: none, rtn"
        );
    }
}
