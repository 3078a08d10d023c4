//! `fireq passes`: the pass table.

use fireq_passes::{BuiltIn, NamedPipeline, OptionInfo, PASSES, PIPELINES, PassInfo, RECIPES};
use serde_json::{Value, json};

use super::output::{emit, emit_json};
use crate::cli::Passes;
use crate::failure::Outcome;

/// Prints every pass with its effect and options, and the named pipelines made of them.
pub fn passes(options: &Passes) -> Outcome {
    if options.json {
        let passes: Vec<Value> = PASSES.iter().map(pass_json).collect();
        let recipes: Vec<Value> = RECIPES.iter().map(recipe_json).collect();
        let pipelines: Vec<Value> = PIPELINES.iter().map(pipeline_json).collect();
        return emit_json(&json!({ "passes": passes, "recipes": recipes, "pipelines": pipelines }));
    }
    let passes: String = PASSES.iter().map(pass_text).collect();
    let recipes: String = RECIPES.iter().map(recipe_text).collect();
    let pipelines: String = PIPELINES.iter().map(pipeline_text).collect();
    emit(&format!(
        "{passes}\nrecipes, which may stand where passes do (`fireq compile --print-recipe --recipe NAME`)\n\n{recipes}\n\
         named pipelines, which may, too\n\n{pipelines}"
    ))
}

fn pass_text(pass: &PassInfo) -> String {
    let option = |o: &OptionInfo| format!("    {}={}: {}\n", o.name, o.default, o.doc);
    let options: String = pass.options.iter().map(option).collect();
    format!("{} ({})\n    {}\n{options}", pass.id, pass.effect.name(), pass.summary)
}

fn pipeline_text(pipeline: &NamedPipeline) -> String {
    let steps: String = pipeline.steps.iter().map(|(step, why)| step_text(step, why)).collect();
    format!("{}: {}\n{steps}", pipeline.name, pipeline.summary)
}

fn recipe_text(built_in: &BuiltIn) -> String {
    let recipe = built_in.recipe();
    let blocks = if recipe.in_blocks() { "    each on one block after another:\n" } else { "" };
    let steps = recipe.steps().into_iter().chain(recipe.head());
    let steps: String = steps.map(|(step, why)| step_text(&step, why)).collect();
    format!("{}: {}\n{blocks}{steps}", built_in.name, recipe.summary)
}

fn step_text(step: &str, why: &str) -> String {
    format!("    {step}\n        {why}\n")
}

fn pass_json(pass: &PassInfo) -> Value {
    let option = |o: &OptionInfo| json!({ "name": o.name, "default": o.default, "doc": o.doc });
    let options: Vec<Value> = pass.options.iter().map(option).collect();
    json!({ "id": pass.id, "effect": pass.effect.name(), "summary": pass.summary, "options": options })
}

fn recipe_json(built_in: &BuiltIn) -> Value {
    let recipe = built_in.recipe();
    let step = |(step, why): (String, &str)| json!({ "step": step, "why": why });
    let steps: Vec<Value> = recipe.steps().into_iter().chain(recipe.head()).map(step).collect();
    json!({ "name": built_in.name, "summary": recipe.summary, "steps": steps, "passes": recipe.pipeline() })
}

fn pipeline_json(pipeline: &NamedPipeline) -> Value {
    let step = |(step, why): &(&str, &str)| json!({ "step": step, "why": why });
    let steps: Vec<Value> = pipeline.steps.iter().map(step).collect();
    json!({ "name": pipeline.name, "summary": pipeline.summary, "steps": steps, "passes": pipeline.text() })
}
