//! `fireq passes`: the pass table.

use fireq_passes::{OptionInfo, PASSES, PassInfo, RECIPES, Recipe};
use serde_json::{Value, json};

use super::output::{emit, emit_json};
use crate::cli::Passes;
use crate::failure::Outcome;

/// Prints every pass with its effect and options, and the recipes made of them.
pub fn passes(options: &Passes) -> Outcome {
    if options.json {
        let passes: Vec<Value> = PASSES.iter().map(pass_json).collect();
        let recipes: Vec<Value> = RECIPES.iter().map(recipe_json).collect();
        return emit_json(&json!({ "passes": passes, "recipes": recipes }));
    }
    let passes: String = PASSES.iter().map(pass_text).collect();
    let recipes: String = RECIPES.iter().map(recipe_text).collect();
    emit(&format!("{passes}\nrecipes\n{recipes}"))
}

fn pass_text(pass: &PassInfo) -> String {
    let option = |o: &OptionInfo| format!("    {}={}: {}\n", o.name, o.default, o.doc);
    let options: String = pass.options.iter().map(option).collect();
    format!("{} ({})\n    {}\n{options}", pass.id, pass.effect.name(), pass.summary)
}

fn recipe_text(recipe: &Recipe) -> String {
    format!("{}\n    {}: '{}'\n", recipe.name, recipe.summary, recipe.passes)
}

fn pass_json(pass: &PassInfo) -> Value {
    let option = |o: &OptionInfo| json!({ "name": o.name, "default": o.default, "doc": o.doc });
    let options: Vec<Value> = pass.options.iter().map(option).collect();
    json!({ "id": pass.id, "effect": pass.effect.name(), "summary": pass.summary, "options": options })
}

fn recipe_json(recipe: &Recipe) -> Value {
    json!({ "name": recipe.name, "summary": recipe.summary, "passes": recipe.passes })
}
