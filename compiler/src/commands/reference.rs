//! The unquantized reference as an artifact of this run only, and how the command line's build options are read.

use fireq::build::{BuildOptions, build};
use fireq::compile::CompileError;
use fireq::import::Model;
use fireq_codegen::llvm::Cpu;
use fireq_ir::plan::lower;
use fireq_runtime::Artifact;
use tempfile::TempDir;

use crate::cli::{CpuLevel, Executed};
use crate::failure::Outcome;

/// Compiles a model with recipe `none` for this machine.
pub fn compile(mut model: Model, options: &Executed) -> Outcome<(Artifact, TempDir)> {
    let passes = fireq_passes::pipeline("none")?;
    passes.run(&mut model.graph).map_err(CompileError::from)?;
    let lowered = lower(&model.graph).map_err(CompileError::from)?;
    let temporary = tempfile::Builder::new().prefix("fireq-").tempdir()?;
    let out = temporary.path().join("reference.fireq");
    let build_options = build_options(CpuLevel::Host, false, options.threads);
    build(&model, &lowered, "none", None, build_options, &out, &|_, _| ())?;
    Ok((Artifact::open(&out)?, temporary))
}

/// Build options as the command line gives them.
pub fn build_options(level: CpuLevel, emit_llvm: bool, threads: Option<usize>) -> BuildOptions {
    let cpu = match level {
        CpuLevel::Host => Cpu::Host,
        CpuLevel::Baseline => Cpu::Baseline,
        CpuLevel::X86V3 => Cpu::X86V3,
        CpuLevel::X86V4 => Cpu::X86V4,
    };
    let threads = threads.unwrap_or_else(rayon::current_num_threads).max(1);
    BuildOptions { cpu, emit_llvm, threads }
}
