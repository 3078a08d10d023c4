//! Recipes: named pipelines.

use fireq_ir::text::nearest;

use crate::error::RecipeError;

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
        // 1. Weights: their codes are what marks a linear as quantized, for the next step.
        // 2. Activations: only where a linear has INT4 weights; the head keeps both its operands.
        // 3. The cache depends on neither, and last it reads best in dumps: the linears stand as they stay.
        // `cse` has nothing to do here: importers and these passes share what they can.
        passes: "quantize-weights,quantize-activations,quantize-kv",
    },
];

/// Recipes whose passes are not all there: names that mean something, and nothing else may take.
const PLANNED: [&str; 2] = ["fireq", "paper"];

/// The recipe of that name.
pub fn recipe(name: &str) -> Result<&'static Recipe, RecipeError> {
    RECIPES.iter().find(|r| r.name == name).ok_or_else(|| refuse(name))
}

fn refuse(name: &str) -> RecipeError {
    let names: Vec<&str> = RECIPES.iter().map(|r| r.name).collect();
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

    #[test]
    fn a_planned_recipe_is_known_and_refused() {
        for name in PLANNED {
            let message = format!("recipe `{name}` is not available yet; there are: none, rtn");
            assert_eq!(recipe(name).unwrap_err().to_string(), message);
        }
    }
}
