//! `fireq passes`: the pass table.

use fireq_passes::{NamedPipeline, OptionInfo, PASSES, PIPELINES, PassInfo};
use serde_json::{Value, json};

use super::output::{emit, emit_json};
use crate::cli::Passes;
use crate::failure::Outcome;

/// Prints every pass with its effect and options, and the named pipelines made of them.
pub fn passes(options: &Passes) -> Outcome {
    if options.json {
        let passes: Vec<Value> = PASSES.iter().map(pass_json).collect();
        let pipelines: Vec<Value> = PIPELINES.iter().map(pipeline_json).collect();
        return emit_json(&json!({ "passes": passes, "pipelines": pipelines }));
    }
    let passes: String = PASSES.iter().map(pass_text).collect();
    let pipelines: String = PIPELINES.iter().map(pipeline_text).collect();
    emit(&format!("{passes}\nnamed pipelines, which may stand where passes do\n\n{pipelines}"))
}

fn pass_text(pass: &PassInfo) -> String {
    let option = |o: &OptionInfo| format!("    {}={}: {}\n", o.name, o.default, o.doc);
    let options: String = pass.options.iter().map(option).collect();
    format!("{} ({})\n    {}\n{options}", pass.id, pass.effect.name(), pass.summary)
}

fn pipeline_text(pipeline: &NamedPipeline) -> String {
    let step = |(step, why): &(&str, &str)| format!("    {step}\n        {why}\n");
    let steps: String = pipeline.steps.iter().map(step).collect();
    format!("{}: {}\n{steps}", pipeline.name, pipeline.summary)
}

fn pass_json(pass: &PassInfo) -> Value {
    let option = |o: &OptionInfo| json!({ "name": o.name, "default": o.default, "doc": o.doc });
    let options: Vec<Value> = pass.options.iter().map(option).collect();
    json!({ "id": pass.id, "effect": pass.effect.name(), "summary": pass.summary, "options": options })
}

fn pipeline_json(pipeline: &NamedPipeline) -> Value {
    let step = |(step, why): &(&str, &str)| json!({ "step": step, "why": why });
    let steps: Vec<Value> = pipeline.steps.iter().map(step).collect();
    json!({ "name": pipeline.name, "summary": pipeline.summary, "steps": steps, "passes": pipeline.text() })
}
