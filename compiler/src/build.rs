//! From plan to artifact: code for the CPU, packed weights, and the files that go with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fireq_codegen::artifact::{ArtifactError, Build, Code, write};
use fireq_codegen::llvm::{self, Cpu};
use fireq_ir::artifact::{CPU_LIBRARY, Manifest, Target};
use fireq_ir::plan::Lowered;

use crate::compile::{CompileError, facts, kept_files};
use crate::import::Model;

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

/// Compiles a lowered model and writes its artifact. `progress` is told bytes of weights done and in all.
pub fn build(
    model: &Model,
    lowered: &Lowered,
    recipe: &str,
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
        threads: options.threads,
    };
    let generate = |dir: &Path| generate(lowered, options, dir);
    Ok(write(&build, out, generate, progress)?)
}

fn generate(lowered: &Lowered, options: BuildOptions, dir: &Path) -> Result<Code, ArtifactError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ArtifactError::Io { path, source }
    };
    let library = dir.join(CPU_LIBRARY);
    let folder = library.parent().unwrap_or(dir);
    fs::create_dir_all(folder).map_err(io(folder))?;
    let module =
        llvm::compile(&lowered.plan, options.cpu, &library).map_err(|e| ArtifactError::Code(Box::new(e)))?;
    if options.emit_llvm {
        let path = library.with_extension("ll");
        fs::write(&path, &module.ll).map_err(io(&path))?;
    }
    let target =
        Target { arch: std::env::consts::ARCH.into(), triple: module.triple, features: module.features };
    Ok(Code { target, kernels: reasons(lowered) })
}

/// Why each kernel is the way it is. The CPU backend specializes for types and has one way for each.
fn reasons(lowered: &Lowered) -> BTreeMap<String, String> {
    let mut launches: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for launch in &lowered.plan.launches {
        launches.entry(launch.symbol.to_string()).or_insert((launch.kernel.mnemonic(), 0)).1 += 1;
    }
    let reason = |(symbol, (op, count))| {
        (symbol, format!("cpu: `{op}` specialized for the types of its {count} launches, the only variant"))
    };
    launches.into_iter().map(reason).collect()
}
