//! From plan to artifact: code for the CPU, packed weights, and the files that go with them.

use std::path::Path;

use fireq_codegen::artifact::{Build, write};
use fireq_codegen::llvm::{Cpu, generate};
use fireq_ir::artifact::Manifest;
use fireq_ir::plan::Lowered;

use crate::compile::{CompileError, facts, kept_files};
use crate::import::Model;
use crate::report::{self, Report};

/// How an artifact is built; none of it changes what the artifact computes.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions {
    /// The machines that code is for.
    pub cpu: Cpu,
    /// Keep the LLVM IR, as `cpu/model.ll`.
    pub emit_llvm: bool,
    /// Threads that pack weights.
    pub threads: usize,
}

/// Compiles a lowered model and writes its artifact, with the report of its quantization if there is one. `progress` is
/// told bytes of weights done and in all.
pub fn build(
    model: &Model,
    lowered: &Lowered,
    recipe: &str,
    report: Option<&Report>,
    options: BuildOptions,
    out: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Manifest, CompileError> {
    let build = Build {
        graph: &model.graph,
        lowered,
        recipe,
        model: facts(model),
        copies: kept_files(&model.dir),
        texts: report.map(|report| (report::FILE, report.to_json())).into_iter().collect(),
        threads: options.threads,
    };
    let generate = |dir: &Path| generate(&lowered.plan, options.cpu, options.emit_llvm, dir);
    Ok(write(&build, out, generate, progress)?)
}
