//! What a model is compiled for, as the command line says it.

use fireq::build::{BuildOptions, Targets};
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::nvrtc::{ARCHITECTURE, NvrtcFailure, version};
use fireq_codegen::cuda::toolkit::HOW_TO_INSTALL;

use fireq_kernels::cuda::tuning::Tuning;

use crate::cli::{Compile, CpuLevel};
use crate::failure::{Failure, Outcome};

/// The targets; what this build or this machine cannot compile for is refused before any work.
pub fn targets(options: &Compile) -> Outcome<Targets> {
    let has = |name: &str| options.target.iter().any(|target| target == name);
    if let Some(other) =
        options.target.iter().find(|target| !["cpu", ARCHITECTURE].contains(&target.as_str()))
    {
        let message = format!("there is no target `{other}`");
        return Err(Failure::new(message).hint("targets are cpu and sm_90a; cpu,sm_90a is both"));
    }
    let targets = Targets { cpu: has("cpu"), cuda: has(ARCHITECTURE) };
    if targets.cuda && !options.dry_run {
        check_nvrtc()?;
    }
    if targets.cpu && !options.dry_run && !cfg!(feature = "llvm") {
        return Err(Failure::new("this build has no LLVM, which CPU artifacts need").hint(
            "build fireq with default features; --target sm_90a, --dry-run, inspect and opt work without",
        ));
    }
    Ok(targets)
}

/// What compiles GPU kernels must be there.
pub fn check_nvrtc() -> Outcome {
    version().map(drop).map_err(|error| match error {
        NvrtcFailure::Missing => {
            Failure::new("NVRTC, which compiles GPU kernels, is not installed").hint(HOW_TO_INSTALL)
        }
        other => Failure::from_error(&other),
    })
}

/// Build options as the command line gives them.
pub fn build_options(
    level: CpuLevel,
    emit_llvm: bool,
    threads: Option<usize>,
    tuning: Tuning,
) -> BuildOptions {
    #[cfg(not(feature = "llvm"))]
    let _ = level;
    BuildOptions {
        #[cfg(feature = "llvm")]
        cpu: cpu(level),
        emit_llvm,
        cache: Cache::of_user(),
        tuning,
        threads: threads.unwrap_or_else(rayon::current_num_threads).max(1),
    }
}

#[cfg(feature = "llvm")]
fn cpu(level: CpuLevel) -> fireq_codegen::llvm::Cpu {
    use fireq_codegen::llvm::Cpu;
    match level {
        CpuLevel::Host => Cpu::Host,
        CpuLevel::Baseline => Cpu::Baseline,
        CpuLevel::X86V3 => Cpu::X86V3,
        CpuLevel::X86V4 => Cpu::X86V4,
        CpuLevel::X86V4Bf16 => Cpu::X86V4Bf16,
    }
}
