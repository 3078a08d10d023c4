//! The artifact of a shape, compiled for this run.

use fireq::build::{Plans, Targets, build_anew};
use fireq::compile::CompileError;
use fireq::shapes::import_named;
use fireq_kernels::cuda::tuning::Tuning;
use fireq_runtime::Artifact;
use tempfile::TempDir;

use crate::cli::recipe::RecipeArgs;
use crate::cli::{Bench, CpuLevel};
use crate::commands::recipe::structure;
use crate::commands::targets::{build_options, check_nvrtc};
use crate::failure::Outcome;

/// Compiles the shape's kernels; the folder lives as long as the run.
pub fn compile(options: &Bench, shape: &str) -> Outcome<(Artifact, TempDir)> {
    let recipe = RecipeArgs { recipe: options.recipe.clone(), print_recipe: false, passes: None };
    let (chosen, scaled) = structure(&recipe)?;
    let mut model = import_named(shape, options.model.import.options(), scaled)?;
    check_nvrtc()?;
    fireq_passes::pipeline(&chosen.pipeline)?.run(&mut model.graph).map_err(CompileError::from)?;
    let plans = Plans::of(&model.graph, Targets { cpu: false, cuda: true })?;
    let temporary = tempfile::Builder::new().prefix("fireq-").tempdir()?;
    let out = temporary.path().join("shape.fireq");
    let how = build_options(CpuLevel::Host, false, options.model.threads, Tuning::default());
    build_anew(&model, &plans, &chosen.pipeline, &how, &out)?;
    Ok((Artifact::open_for_gpu(&out)?, temporary))
}
