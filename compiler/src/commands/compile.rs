//! `fireq compile`: a model directory becomes an artifact.

use std::fs;
use std::path::Path;
use std::time::Instant;

use fireq::compile::{CompileError, Sizes, sizes, transform};
use fireq::import::{Model, import_with};
use fireq::summary::summarize;
use fireq_ir::plan::{Lowered, lower, print_plan};
use fireq_ir::text::print_graph;
use fireq_ir::{Graph, Pass};
use serde_json::{Value, json};

use super::open::set_threads;
use super::output::{bytes, emit, emit_json};
use crate::cli::Compile;
use crate::failure::{Failure, Outcome};

/// Compiles, or with --dry-run says what would come out.
pub fn compile(options: &Compile) -> Outcome {
    let began = Instant::now();
    check_target(options)?;
    set_threads(options.threads)?;
    let (recipe, passes) = pipeline(options)?;
    check_print_after(options, &passes)?;
    let mut model = import_with(&options.model, options.import.options())?;
    let checkpoint = summarize(&model.graph);
    let applied = run_passes(options, &passes, &mut model.graph)?;
    if options.stop_after.is_some() {
        return emit(&print_graph(&model.graph));
    }
    let lowered = lower(&model.graph).map_err(CompileError::from)?;
    dump_plan(options, passes.len(), &lowered)?;
    if !options.dry_run {
        build(options, &model, &lowered, &recipe)?;
    }
    let report = Report {
        model: &model,
        recipe: &recipe,
        applied,
        checkpoint_bytes: checkpoint.constant_bytes,
        parameters: checkpoint.parameters,
        sizes: sizes(&lowered.plan),
        seconds: began.elapsed().as_secs_f64(),
    };
    if options.json { emit_json(&report.json(options)) } else { emit(&report.text(options)) }
}

fn check_target(options: &Compile) -> Outcome {
    match options.target.iter().find(|target| *target != "cpu") {
        Some(other) => {
            let message = format!("target `{other}` is not supported by this build yet");
            Err(Failure::new(message).hint("use --target cpu"))
        }
        None => Ok(()),
    }
}

/// The name that the artifact records, and the passes.
fn pipeline(options: &Compile) -> Outcome<(String, Vec<Box<dyn Pass>>)> {
    let (name, text) = match &options.passes {
        Some(text) => (text.clone(), text.clone()),
        None => (options.recipe.clone(), recipe(&options.recipe)?),
    };
    Ok((name, fireq_passes::pipeline(&text)?))
}

/// The pipeline of a recipe.
pub fn recipe(name: &str) -> Outcome<String> {
    let is_file = Path::new(name).extension().is_some_and(|e| e == "toml");
    if is_file || matches!(name, "fireq" | "paper") {
        let message = format!("recipe `{name}` is not supported by this build yet");
        return Err(
            Failure::new(message).hint("use rtn (round to nearest) or none; --passes runs any pipeline")
        );
    }
    Ok(fireq_passes::recipe(name)?.passes.to_string())
}

fn check_print_after(options: &Compile, passes: &[Box<dyn Pass>]) -> Outcome {
    match &options.print_ir_after {
        Some(name) if name != "all" && passes.iter().all(|p| p.id() != name) => {
            let ids: Vec<&str> = passes.iter().map(|p| p.id()).collect();
            let message = format!("--print-ir-after names `{name}`, which is not in the pipeline");
            Err(Failure::new(message).hint(format!("give `all` or one of: {}", ids.join(", "))))
        }
        _ => Ok(()),
    }
}

fn run_passes(
    options: &Compile,
    passes: &[Box<dyn Pass>],
    graph: &mut Graph,
) -> Outcome<Vec<(String, usize)>> {
    let mut applied = vec![];
    dump(options, 0, "import", || print_graph(graph))?;
    transform(graph, passes, options.stop_after.unwrap_or(usize::MAX), |pass, graph, patches| {
        applied.push((pass.id().to_string(), patches));
        if options.print_ir_after.as_ref().is_some_and(|name| name == "all" || name == pass.id()) {
            eprintln!("// after {}: {patches} patches\n{}", pass.id(), print_graph(graph));
        }
        dump(options, applied.len(), pass.id(), || print_graph(graph))
    })?;
    Ok(applied)
}

fn dump_plan(options: &Compile, passes: usize, lowered: &Lowered) -> Outcome {
    Ok(dump(options, passes + 1, "plan", || print_plan(&lowered.plan))?)
}

/// Writes one numbered file of --dump-ir.
fn dump(
    options: &Compile,
    number: usize,
    stage: &str,
    text: impl FnOnce() -> String,
) -> Result<(), CompileError> {
    let Some(dir) = &options.dump_ir else { return Ok(()) };
    let path = dir.join(format!("{number:02}-{stage}.ir"));
    let written = fs::create_dir_all(dir).and_then(|()| fs::write(&path, text()));
    written.map_err(|source| CompileError::Dump { path, source })
}

#[cfg(feature = "llvm")]
fn build(options: &Compile, model: &Model, lowered: &Lowered, recipe: &str) -> Outcome {
    use super::output::progress;

    let Some(out) = &options.output else { return Ok(()) };
    let bar = progress("weights", 0);
    let build = super::reference::build_options(options.cpu, options.emit_llvm, options.threads);
    fireq::build::build(model, lowered, recipe, build, out, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(not(feature = "llvm"))]
fn build(_: &Compile, _: &Model, _: &Lowered, _: &str) -> Outcome {
    Err(Failure::new("this build has no LLVM, which CPU artifacts need")
        .hint("build fireq with default features; --dry-run, inspect and opt work without"))
}

struct Report<'a> {
    model: &'a Model,
    recipe: &'a str,
    /// Passes with the number of patches they applied.
    applied: Vec<(String, usize)>,
    checkpoint_bytes: u64,
    parameters: u64,
    sizes: Sizes,
    seconds: f64,
}

impl Report<'_> {
    fn json(&self, options: &Compile) -> Value {
        let pass = |(id, patches): &(String, usize)| json!({ "pass": id, "patches": patches });
        json!({
            "model": self.model.config.name,
            "recipe": self.recipe,
            "output": options.output.as_ref().filter(|_| !options.dry_run),
            "dry_run": options.dry_run,
            "passes": self.applied.iter().map(pass).collect::<Vec<_>>(),
            "parameters": self.parameters,
            "checkpoint_bytes": self.checkpoint_bytes,
            "weight_bytes": self.sizes.weights,
            "cache_bytes_per_token": self.sizes.cache_per_token,
            "scratch_bytes_per_token": self.sizes.arena_per_token,
            "seconds": self.seconds,
        })
    }

    fn text(&self, options: &Compile) -> String {
        let context = self.model.config.context as u64;
        let verb = if options.dry_run { "would compile" } else { "compiled" };
        let out = options.output.as_ref().map_or_else(String::new, |out| format!(" to {}", out.display()));
        format!(
            "{verb} {}{out} with recipe {} in {:.1} s\n  weights   {} from {} ({:.2} bits per parameter)\n  \
             KV cache  {} per token, {} for {context} positions\n",
            self.model.config.name,
            self.recipe,
            self.seconds,
            bytes(self.sizes.weights),
            bytes(self.checkpoint_bytes),
            self.sizes.weights as f64 * 8.0 / self.parameters as f64,
            bytes(self.sizes.cache_per_token),
            bytes(self.sizes.cache_per_token * context),
        )
    }
}
