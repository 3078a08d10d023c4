//! `fireq compile`: a model directory becomes an artifact.

use std::sync::Arc;
use std::time::Instant;

use fireq::build::{Plans, Targets};
use fireq::calibrate::{CalibrationOptions, calibration};
use fireq::compile::{CompileError, Sizes, facts, sizes};
use fireq::import::{Model, import_with};
use fireq::report::Report;
use fireq::shapes::import_named;
use fireq::summary::summarize;
use fireq::watch::{Line, Watch};
use fireq_codegen::artifact::check_output;
use fireq_ir::Graph;
use fireq_ir::artifact::CudaCode;
use fireq_ir::plan::print_plan;
use fireq_ir::text::print_graph;
use fireq_kernels::cuda::tuning::Tuning;
use fireq_passes::Calibration;
use serde_json::{Value, json};

use super::codes::Codes;
use super::open::set_threads;
use super::output::{bytes, emit, emit_json, progress};
use super::recipe::{Chosen, chosen, structure, text};
use super::targets::{build_options, targets};
use super::{gpu_kernels, partial, quantized, tuning};
use crate::cli::Compile;
use crate::failure::{Failure, Outcome};

/// Compiles, or with --dry-run says what would come out.
pub fn compile(options: &Compile) -> Outcome {
    if options.recipe.print_recipe {
        return emit(&text(&options.recipe)?);
    }
    let began = Instant::now();
    let (targets, (recipe, scaled), tuning) = checked(options)?;
    set_threads(options.threads)?;
    let mut model = imported(options, scaled)?;
    let calibration = calibrated(options, &model, &recipe.pipeline)?;
    let pipeline = fireq_passes::pipeline_with(&recipe.pipeline, &calibration)?;
    let checkpoint = summarize(&model.graph);
    let stopped = options.run.stop_after.is_some();
    let last =
        |watch: &Watch<'_>, graph: &Graph| if stopped { Ok(None) } else { lower_last(watch, graph, targets) };
    let (passes, plans) = super::pipeline::run(&options.run, &pipeline, &mut model.graph, last)?;
    let Some(plans) = plans else { return emit(&print_graph(&model.graph)) };
    let report = match options.shape {
        Some(_) => None,
        None => quantized::report(options, &model, &recipe.label, &calibration)?,
    };
    let mut cuda = None;
    if !options.dry_run {
        cuda = build(options, &model, &plans, &recipe.pipeline, report.as_ref(), tuning)?;
        partial::remove(options);
    }
    if let (Some(report), Some(out)) = (&report, &options.html) {
        quantized::write_page(report, out)?;
    }
    let made = Made {
        model: &model,
        recipe: &recipe,
        passes,
        checkpoint_bytes: model.packed.as_ref().map_or(checkpoint.constant_bytes, |packed| packed.bytes),
        parameters: checkpoint.parameters,
        sizes: plans.shown().map(|lowered| sizes(&lowered.plan)).unwrap_or_default(),
        cuda,
        report,
        seconds: began.elapsed().as_secs_f64(),
    };
    if options.json { emit_json(&made.json(options)) } else { emit(&made.text(options)) }
}

/// What to compile for, the recipe, and measurements; what is wrong with the options is said before the work, not after it.
fn checked(options: &Compile) -> Outcome<(Targets, (Chosen, bool), Tuning)> {
    let targets = targets(options)?;
    let tuning = options.tuning.as_deref().map(tuning::read).transpose()?.unwrap_or_default();
    if let Some(out) = options.output.as_ref().filter(|_| !options.dry_run) {
        check_output(out).map_err(CompileError::from)?;
    }
    if options.shape.is_none() {
        return Ok((targets, (chosen(&options.recipe)?, false), tuning));
    }
    if targets.cpu {
        let message = "a shape has no weights, and CPUs are measured with an artifact that has them";
        return Err(Failure::new(message).hint("leave --target out, or give sm_90a"));
    }
    Ok((targets, structure(&options.recipe)?, tuning))
}

/// The model, or with --shape one whose weights are unknown.
fn imported(options: &Compile, scaled: bool) -> Outcome<Model> {
    if let Some(shape) = &options.shape {
        return Ok(import_named(shape, options.import.options(), scaled)?);
    }
    let dir = options.model.as_deref().expect("only --print-recipe and --shape go without");
    Ok(import_with(dir, options.import.options())?)
}

/// The plans of the graph that passes left.
fn lower_last(watch: &Watch<'_>, graph: &Graph, targets: Targets) -> Outcome<Option<Plans>> {
    let plans = Plans::of(graph, targets)?;
    let all = plans.cpu.iter().chain(plans.cuda.as_ref().map(|(_, lowered)| lowered));
    for (name, lowered) in ["plan", "plan-sm_90a"].into_iter().skip(usize::from(plans.cpu.is_none())).zip(all)
    {
        watch.dump_next(name, || print_plan(&lowered.plan))?;
    }
    Ok(Some(plans))
}

/// Calibration data, and where finished blocks go while an artifact is made.
fn calibrated(options: &Compile, model: &Model, recipe: &str) -> Outcome<Arc<Calibration>> {
    let given = calibration_options(options);
    let calibration = calibration(&model.dir, &facts(model), given.clone());
    let out = options.output.as_ref().filter(|_| !options.dry_run && options.run.stop_after.is_none());
    let Some(out) = out.filter(|_| options.shape.is_none()) else { return Ok(Arc::new(calibration)) };
    let journal = partial::journal(options, out, model, recipe, &given)?;
    Ok(Arc::new(calibration.with_journal(Arc::new(journal))))
}

/// Tokens of a sequence: enough for attention to have something to choose from.
const SEQUENCE: usize = 512;

fn calibration_options(options: &Compile) -> CalibrationOptions {
    CalibrationOptions {
        text: options.calib.clone(),
        tokens: options.calib_tokens,
        sequence: SEQUENCE,
        threads: options.threads.unwrap_or_else(rayon::current_num_threads).max(1),
    }
}

/// Writes the artifact, and says what GPU code it has.
fn build(
    options: &Compile,
    model: &Model,
    plans: &Plans,
    recipe: &str,
    report: Option<&Report>,
    tuning: Tuning,
) -> Outcome<Option<CudaCode>> {
    let Some(out) = &options.output else { return Ok(None) };
    let bar = progress("weights", 0);
    let build = build_options(options.cpu, options.emit_llvm, options.threads, tuning);
    let manifest = fireq::build::build(model, plans, recipe, report, &build, out, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(manifest.cuda)
}

/// What a compilation gave.
struct Made<'a> {
    model: &'a Model,
    recipe: &'a Chosen,
    /// What the passes did.
    passes: Vec<Line>,
    checkpoint_bytes: u64,
    parameters: u64,
    sizes: Sizes,
    cuda: Option<CudaCode>,
    report: Option<Report>,
    seconds: f64,
}

impl Made<'_> {
    /// What became of codes that the checkpoint has.
    fn codes(&self) -> Option<Codes<'_>> {
        self.model.packed.as_ref().map(|packed| Codes::of(packed, &self.model.graph))
    }

    fn json(&self, options: &Compile) -> Value {
        let pass =
            |line: &Line| json!({ "pass": line.pass, "patches": line.patches, "seconds": line.seconds });
        json!({
            "model": self.model.config.name,
            "recipe": self.recipe.label,
            "pipeline": self.recipe.pipeline,
            "output": options.output.as_ref().filter(|_| !options.dry_run),
            "dry_run": options.dry_run,
            "passes": self.passes.iter().map(pass).collect::<Vec<_>>(),
            "parameters": self.parameters,
            "checkpoint_bytes": self.checkpoint_bytes,
            "weight_bytes": self.sizes.weights,
            "weightless": self.model.weightless,
            "codes": self.codes().map(|codes| codes.json()),
            "cache_bytes_per_token": self.sizes.cache_per_token,
            "scratch_bytes_per_token": self.sizes.arena_per_token,
            "cuda": self.cuda,
            "quantization": self.report.as_ref().map(quantized::json),
            "seconds": self.seconds,
        })
    }

    fn text(&self, options: &Compile) -> String {
        let context = self.model.config.context as u64;
        let verb = if options.dry_run { "would compile" } else { "compiled" };
        let out = options.output.as_ref().map_or_else(String::new, |out| format!(" to {}", out.display()));
        format!(
            "{verb} {}{out} with recipe {} in {:.1} s\n  weights   {} from {} ({:.2} bits per parameter){}\n  \
             KV cache  {} per token, {} for {context} positions\n{}{}{}",
            self.model.config.name,
            self.recipe.label,
            self.seconds,
            bytes(self.sizes.weights),
            bytes(self.checkpoint_bytes),
            self.sizes.weights as f64 * 8.0 / self.parameters as f64,
            if self.model.weightless { ", left out: only their shapes are known" } else { "" },
            bytes(self.sizes.cache_per_token),
            bytes(self.sizes.cache_per_token * context),
            self.codes().map_or_else(String::new, |codes| codes.text()),
            self.cuda.as_ref().map(gpu_kernels::text).unwrap_or_default(),
            self.report.as_ref().map(quantized::text).unwrap_or_default(),
        )
    }
}
