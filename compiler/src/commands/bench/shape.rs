//! The artifact of a shape, compiled for this run.

use fireq::build::{Origin, Plans, Targets, build};
use fireq::compile::CompileError;
use fireq::shapes::import_named;
use fireq_codegen::artifact::Partial;
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
    let partial = Partial::open(&out).map_err(CompileError::from)?;
    build(&model, &plans, &chosen.pipeline, (None, &Origin::default()), &how, &partial, &|_| ())?;
    Ok((Artifact::open_for_gpu(&out)?, temporary))
}
