//! `fireq inspect` of an artifact: what its manifest says, with sizes.

use std::path::Path;

use fireq::compile::sizes;
use fireq::report::{FILE, Report};
use fireq_ir::artifact::{GRAPH, Manifest};
use fireq_ir::plan::print_plan;
use fireq_runtime::Artifact;
use serde_json::{Value, json};

use super::output::{bytes, emit, emit_json};
use super::quantized::write_page;
use crate::cli::Inspect;
use crate::failure::{Failure, Outcome};

/// Prints the graph, the plan, or a summary. The artifact may be for another machine; its files are checked.
pub fn inspect(options: &Inspect) -> Outcome {
    let artifact = Artifact::describe(&options.input)?;
    if let Some(out) = &options.report {
        return write_page(&read_report(&artifact)?, out);
    }
    if options.kernels {
        return super::gpu_kernels::inspect(&artifact, options.json);
    }
    if options.ir {
        return emit(&artifact.text(GRAPH)?);
    }
    if options.plan {
        return emit(&print_plan(&artifact.plan));
    }
    if options.json { emit_json(&as_json(&artifact)) } else { emit(&as_text(&artifact)) }
}

/// The text of the graph that an artifact was made from; the artifact's files are checked.
pub fn graph_text(path: &Path) -> Outcome<String> {
    Ok(Artifact::describe(path)?.text(GRAPH)?)
}

fn read_report(artifact: &Artifact) -> Outcome<Report> {
    if !artifact.manifest.files.contains_key(FILE) {
        let message = format!("the artifact has no {FILE}: nothing was measured when it was compiled");
        return Err(Failure::new(message).hint("compile the model with --recipe fireq"));
    }
    let fail = |e| {
        let path = artifact.dir.join(FILE);
        let failure = Failure::from_error(&e).within(format!("cannot read `{}`", path.display()));
        failure.hint("compile the model again")
    };
    Report::from_json(&artifact.text(FILE)?).map_err(fail)
}

fn as_json(artifact: &Artifact) -> Value {
    let (manifest, sizes) = (&artifact.manifest, sizes(&artifact.plan));
    json!({
        "kind": "artifact",
        "schema": manifest.schema,
        "fireq": manifest.fireq,
        "name": manifest.name,
        "recipe": manifest.recipe,
        "target": manifest.target,
        "cuda": manifest.cuda,
        "model": manifest.model,
        "weight_bytes": sizes.weights,
        "weightless": manifest.weightless,
        "cache_bytes_per_token": sizes.cache_per_token,
        "scratch_bytes_per_token": sizes.arena_per_token,
        "launches": artifact.plan.launches.len(),
        "kernels": manifest.kernels,
        "files": manifest.files,
    })
}

fn as_text(artifact: &Artifact) -> String {
    let (manifest, sizes) = (&artifact.manifest, sizes(&artifact.plan));
    let gpu = manifest.cuda.as_ref().map(super::gpu_kernels::text).unwrap_or_default();
    let kernels: String = manifest.kernels.iter().map(|(name, why)| format!("    {name}: {why}\n")).collect();
    format!(
        "artifact `{}`, recipe {}\n  schema    {}, {}\n  runs on   {}\n  weights   {}{}\n  KV cache  {} per token\n  context   {} tokens\n  \
         launches  {} of {} kernels\n{kernels}{gpu}",
        manifest.name,
        manifest.recipe,
        manifest.schema,
        manifest.fireq.as_ref().map_or("of an earlier fireq".into(), |version| format!("of fireq {version}")),
        machines(manifest),
        bytes(sizes.weights),
        if manifest.weightless { ", left out: only their shapes are known" } else { "" },
        bytes(sizes.cache_per_token),
        manifest.model.context,
        artifact.plan.launches.len(),
        manifest.kernels.len().max(manifest.cuda.as_ref().map_or(0, |cuda| cuda.kernels.len())),
    )
}

/// The machines that run an artifact.
fn machines(manifest: &Manifest) -> String {
    match &manifest.target {
        Some(target) if target.features.is_empty() => target.triple.clone(),
        Some(target) => format!("{} with {}", target.triple, target.features.join(" ")),
        None => "no machine yet".into(),
    }
}
