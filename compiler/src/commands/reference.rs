//! The unquantized reference as an artifact of this run only.

use fireq::build::{Plans, Targets, build_anew};
use fireq::compile::CompileError;
use fireq::import::Model;
use fireq_kernels::cuda::tuning::Tuning;
use fireq_runtime::Artifact;
use tempfile::TempDir;

use super::targets::build_options;
use crate::cli::{CpuLevel, Executed};
use crate::failure::Outcome;

/// Compiles a model with recipe `none` for this machine.
pub fn compile(mut model: Model, options: &Executed) -> Outcome<(Artifact, TempDir)> {
    let passes = fireq_passes::pipeline("none")?;
    passes.run(&mut model.graph).map_err(CompileError::from)?;
    let plans = Plans::of(&model.graph, Targets { cpu: true, cuda: false })?;
    let temporary = tempfile::Builder::new().prefix("fireq-").tempdir()?;
    let out = temporary.path().join("reference.fireq");
    let build_options = build_options(CpuLevel::Host, false, options.threads, Tuning::default());
    build_anew(&model, &plans, "none", &build_options, &out)?;
    Ok((Artifact::open(&out)?, temporary))
}
