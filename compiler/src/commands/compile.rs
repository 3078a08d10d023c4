//! `fireq compile`: a model directory becomes an artifact.

use std::sync::Arc;
use std::time::Instant;

use fireq::build::{self, Origin, Plans, Targets};
use fireq::calibrate::{CalibrationOptions, calibration};
use fireq::compile::{CompileError, Sizes, facts, kept_files, sizes};
use fireq::estimate::{Compilation, Estimate, estimate, stand_in};
use fireq::import::{Model, Weights, import_with};
use fireq::report::Report;
use fireq::shapes::import_named;
use fireq::summary::summarize;
use fireq::watch::{Line, Watch};
use fireq_codegen::artifact::{Partial, check_output};
use fireq_ir::Graph;
use fireq_ir::artifact::CudaCode;
use fireq_ir::plan::print_plan;
use fireq_ir::text::print_graph;
use fireq_kernels::cuda::tuning::Tuning;
use fireq_passes::Calibration;
use serde_json::{Value, json};

use super::codes::Codes;
use super::open::set_threads;
use super::output::{bytes, emit, emit_json};
use super::recipe::{Chosen, chosen, structure, text};
use super::targets::{build_options, targets};
use super::{dry_run, gpu_kernels, partial, quantized, tuning};
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
    let partial = partial::open(options)?;
    let (mut model, weights) = imported(options, scaled)?;
    if options.dry_run {
        stand_in(&mut model.graph);
    }
    let (runs, given) = (runs(options, &recipe)?, calibration_options(options));
    let origin = partial.as_ref().map(|_| partial::origin(options.import, &model, &recipe.pipeline, &given));
    let origin = origin.transpose()?.unwrap_or_default();
    let calibration = calibrated(&model, partial.as_ref(), &origin, given.clone());
    let pipeline = fireq_passes::pipeline_with(&runs, &calibration)?;
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
    let how = build_options(options.cpu, options.emit_llvm, options.threads, tuning);
    let (mut cuda, mut estimated) = (None, None);
    if let Some(partial) = &partial {
        let (made_of, tell) = ((report.as_ref(), &origin), partial::packing());
        cuda = build::build(&model, &plans, &recipe.pipeline, made_of, &how, partial, &tell)?.cuda;
    } else if options.dry_run {
        estimated = Some(estimate(Compilation {
            model: &model,
            plans: &plans,
            calibrated: (runs != recipe.pipeline).then_some(&*recipe.pipeline),
            calibration: &given,
            build: &how,
            passes: passes.iter().map(|line| line.seconds).sum(),
        }));
    }
    if let (Some(report), Some(out)) = (&report, &options.html) {
        quantized::write_page(report, out)?;
    }
    let made = Made {
        model: &model,
        recipe: &recipe,
        weights,
        passes,
        checkpoint_bytes: match (weights, &model.packed) {
            (Weights::Listed { bytes: Some(bytes), .. }, _) => bytes,
            (_, Some(packed)) => packed.bytes,
            _ => checkpoint.constant_bytes,
        },
        parameters: checkpoint.parameters,
        sizes: plans.shown().map(|lowered| sizes(&lowered.plan)).unwrap_or_default(),
        cuda,
        report,
        estimated,
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
        options.model.as_deref().map(kept_files).transpose().map_err(CompileError::from)?;
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

/// The model, or with --shape one whose weights are unknown; for a dry run they need not be here.
fn imported(options: &Compile, scaled: bool) -> Outcome<(Model, Weights)> {
    if let Some(shape) = &options.shape {
        return Ok((import_named(shape, options.import.options(), scaled)?, Weights::Implied));
    }
    if options.dry_run {
        return dry_run::imported(options);
    }
    let dir = options.model.as_deref().expect("only --print-recipe and --shape go without");
    Ok((import_with(dir, options.import.options())?, Weights::Here))
}

/// The pipeline that runs: a dry run leaves out what looks at data, and has the same operations and types.
fn runs(options: &Compile, recipe: &Chosen) -> Outcome<String> {
    Ok(if options.dry_run { structure(&options.recipe)?.0.pipeline } else { recipe.pipeline.clone() })
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
fn calibrated(
    model: &Model,
    partial: Option<&Partial>,
    origin: &Origin,
    given: CalibrationOptions,
) -> Arc<Calibration> {
    let calibration = calibration(&model.dir, &facts(model), given);
    match partial.filter(|_| !model.weightless) {
        Some(partial) => Arc::new(calibration.with_journal(Arc::new(partial::journal(partial, origin)))),
        None => Arc::new(calibration),
    }
}

/// Tokens of a sequence: enough for attention to have something to choose from.
pub const SEQUENCE: usize = 512;

fn calibration_options(options: &Compile) -> CalibrationOptions {
    CalibrationOptions {
        text: options.calib.clone(),
        tokens: options.calib_tokens,
        sequence: SEQUENCE,
        threads: options.threads.unwrap_or_else(rayon::current_num_threads).max(1),
    }
}

/// What a compilation gave.
struct Made<'a> {
    model: &'a Model,
    recipe: &'a Chosen,
    weights: Weights,
    /// What the passes did.
    passes: Vec<Line>,
    checkpoint_bytes: u64,
    parameters: u64,
    sizes: Sizes,
    cuda: Option<CudaCode>,
    report: Option<Report>,
    estimated: Option<Estimate>,
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
            "context": self.model.config.context,
            "rope": self.model.config.rope.describe(),
            "estimate": self.estimated.as_ref().map(dry_run::json),
            "cuda": self.cuda,
            "quantization": self.report.as_ref().map(quantized::json),
            "seconds": self.seconds,
        })
    }

    fn text(&self, options: &Compile) -> String {
        let config = &self.model.config;
        let context = config.context as u64;
        let seconds = format!(" in {:.1} s", self.seconds);
        let (verb, took) = if options.dry_run { ("would compile", "") } else { ("compiled", &*seconds) };
        let out = options.output.as_ref().map_or_else(String::new, |out| format!(" to {}", out.display()));
        format!(
            "{verb} {}{out} with recipe {}{took}\n  weights   {} from {} ({:.2} bits per parameter){}\n  \
             KV cache  {} per token, {} for {context} positions\n{}{}{}{}{}",
            config.name,
            self.recipe.label,
            bytes(self.sizes.weights),
            bytes(self.checkpoint_bytes),
            self.sizes.weights as f64 * 8.0 / self.parameters as f64,
            self.left_out(),
            bytes(self.sizes.cache_per_token),
            bytes(self.sizes.cache_per_token * context),
            if config.rope.is_stretched() {
                format!("  rope      {}\n", config.rope.describe())
            } else {
                String::new()
            },
            self.estimated
                .as_ref()
                .map(|estimate| dry_run::text(estimate, config.context))
                .unwrap_or_default(),
            self.codes().map_or_else(String::new, |codes| codes.text()),
            self.cuda.as_ref().map(gpu_kernels::text).unwrap_or_default(),
            self.report.as_ref().map(quantized::text).unwrap_or_default(),
        )
    }

    /// What of the weights is not here, or not in the artifact.
    fn left_out(&self) -> String {
        match dry_run::said(self.weights).filter(|_| self.estimated.is_some()) {
            Some(said) => format!("; {said}"),
            None if self.model.weightless => ", left out: only their shapes are known".into(),
            None => String::new(),
        }
    }
}
