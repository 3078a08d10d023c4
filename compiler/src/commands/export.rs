//! `fireq export`: a quantized model as a checkpoint for other engines.

use std::sync::Arc;
use std::time::Instant;

use fireq::calibrate::{CalibrationOptions, calibration};
use fireq::compile::{CompileError, facts};
use fireq::export::{ExportOptions, Exported, Format, Quantized, check_output, export as write};
use fireq::import::{Model, import_with};
use fireq::source::{Source, classify};
use fireq_codegen::artifact::Partial;
use serde_json::{Value, json};

use super::compile::SEQUENCE;
use super::open::set_threads;
use super::output::{bytes, emit, emit_json, progress};
use super::partial;
use super::quantized::listed;
use super::recipe::for_checkpoint;
use crate::cli::Export;
use crate::cli::recipe::RecipeArgs;
use crate::failure::{Failure, Outcome};

/// Writes the checkpoint and says what is in it.
pub fn export(options: &Export) -> Outcome {
    let began = Instant::now();
    check_output(&options.output)?;
    set_threads(options.threads)?;
    let unfinished = Partial::beside(&options.output).map_err(CompileError::from)?;
    let quantized = match classify(&options.model)? {
        Source::Artifact => artifact(options)?,
        Source::ModelDir => quantized(options, &unfinished)?,
        Source::Config | Source::Ir => {
            let message = format!("`{}` has no weights to export", options.model.display());
            return Err(Failure::new(message).hint("give a model directory or an artifact"));
        }
    };
    let given = ExportOptions {
        format: options.format.format(),
        dtype: options.dtype.dtype(),
        shard: options.shard_size,
    };
    let bar = progress("weights", 0);
    let exported = write(&quantized, given, &unfinished, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    unfinished.clear().map_err(CompileError::from)?;
    let seconds = began.elapsed().as_secs_f64();
    if options.json {
        return emit_json(&as_json(options, &exported, seconds));
    }
    emit(&text(options, &exported, seconds))
}

/// An artifact, which is as it was quantized.
fn artifact(options: &Export) -> Outcome<Quantized> {
    let given = [("--recipe", options.recipe.is_some()), ("--passes", options.passes.is_some())];
    let given = given.into_iter().chain([("--calib", options.calib.is_some())]).find(|(_, given)| *given);
    if let Some((option, _)) = given {
        let message = format!("`{}` is an artifact, which is quantized already", options.model.display());
        return Err(Failure::new(message).hint(format!("leave {option} out, or give the model directory")));
    }
    Ok(Quantized::artifact(&options.model)?)
}

/// A model, quantized as the options say.
fn quantized(options: &Export, unfinished: &Partial) -> Outcome<Quantized> {
    let recipe = options.recipe.clone().unwrap_or_else(|| "rtn".into());
    let recipe = RecipeArgs { recipe, print_recipe: false, passes: options.passes.clone() };
    let pipeline = for_checkpoint(&recipe)?.pipeline;
    let mut model = import_with(&options.model, options.import.options())?;
    run(options, unfinished, &mut model, &pipeline)?;
    Ok(Quantized::model(model, &pipeline)?)
}

/// Runs the pipeline; finished blocks lie beside the output, as those of a compilation do.
fn run(options: &Export, unfinished: &Partial, model: &mut Model, pipeline: &str) -> Outcome {
    let given = CalibrationOptions {
        text: options.calib.clone(),
        tokens: options.calib_tokens,
        sequence: SEQUENCE,
        threads: options.threads.unwrap_or_else(rayon::current_num_threads).max(1),
    };
    let journal = partial::journal(unfinished, &partial::origin(options.import, model, pipeline, &given)?);
    let calibration = calibration(&model.dir, &facts(model), given).with_journal(Arc::new(journal));
    let passes = fireq_passes::pipeline_with(pipeline, &Arc::new(calibration))?;
    passes.run(&mut model.graph).map_err(CompileError::from)?;
    Ok(())
}

fn as_json(options: &Export, exported: &Exported, seconds: f64) -> Value {
    let mut value = json!(exported);
    value["output"] = json!(options.output);
    value["seconds"] = json!(seconds);
    value
}

fn text(options: &Export, exported: &Exported, seconds: f64) -> String {
    let name = options.output.display();
    let form = json!(exported.format);
    let mut text = format!(
        "exported {} to {name} as {} in {seconds:.1} s\n  weights   {}{}\n",
        exported.model,
        form.as_str().unwrap_or_default(),
        bytes(exported.bytes),
        linears(exported),
    );
    text += &differences(exported);
    for (why, weights) in &exported.notes {
        let weights: Vec<&str> = weights.iter().map(String::as_str).collect();
        text += &format!("  note      {}: {why}\n", listed(&weights));
    }
    if !exported.left_out.is_empty() {
        text += &format!("  left out  {}: checkpoints do not say them\n", exported.left_out.join(", "));
    }
    text
}

fn linears(exported: &Exported) -> String {
    let linears = exported.linears;
    let kinds = [
        (linears.w4a8, "INT4 for FP8 inputs".to_string()),
        (linears.w4a16, format!("INT4 for {} inputs", exported.dtype)),
        (linears.numbers, format!("{} numbers", exported.dtype)),
    ];
    let some = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}"));
    let some: Vec<String> = some.collect();
    if some.is_empty() { String::new() } else { format!("; linears: {}", some.join(", ")) }
}

/// How far numbers are from those that fireq's kernels decode.
fn differences(exported: &Exported) -> String {
    let why = match exported.format {
        Format::CompressedTensors => "compressed-tensors does not round products to E4M3",
        Format::Dense => "they are rounded to the dtype",
    };
    let vllm = exported.vllm_error.map_or_else(String::new, |error| {
        format!("\n            {error:.1e} in vLLM's kernel, which does, and rounds scales once more")
    });
    let lines = [
        (exported.error, format!("from the weights that fireq's kernels decode, relative: {why}{vllm}")),
        (exported.rounding_error, format!("of all other numbers, rounded to {}", exported.dtype)),
    ];
    let line = |(error, what): &(f64, String)| format!("  differs   {error:.1e} {what}\n");
    lines.iter().filter(|(error, _)| *error > 0.0).map(line).collect()
}
