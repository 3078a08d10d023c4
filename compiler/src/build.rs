//! From plans to artifact: code for each kind of machine, packed weights, and the files that go with them.

use std::path::Path;

use fireq_codegen::artifact::{ArtifactError, Build, Code, News, Partial, Stored, write};
use fireq_codegen::cuda::{self, cache::Cache};
#[cfg(feature = "llvm")]
use fireq_codegen::llvm::{Cpu, generate};
use fireq_ir::artifact::Manifest;
use fireq_ir::plan::{LowerError, Lowered, lower, lower_fused};
use fireq_ir::{Graph, Sources};
use fireq_kernels::cuda::tuning::Tuning;

use crate::compile::{CompileError, facts, kept_files};
use crate::import::Model;
use crate::report::{self, Report};
use crate::tune;

/// How an artifact is built; none of it changes what the artifact computes.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The CPUs that code is for.
    #[cfg(feature = "llvm")]
    pub cpu: Cpu,
    /// Keep the LLVM IR, as `cpu/model.ll`.
    pub emit_llvm: bool,
    /// Where compiled GPU kernels are kept.
    pub cache: Cache,
    /// What GPU kernels were measured to be quickest with.
    pub tuning: Tuning,
    /// Threads that pack weights.
    pub threads: usize,
}

/// The plans of a model, for each kind of machine that it is compiled for.
#[derive(Clone, Debug)]
pub struct Plans {
    /// For CPUs.
    pub cpu: Option<Lowered>,
    /// For GPUs, with the fused graph that it comes from.
    pub cuda: Option<(Graph, Lowered)>,
}

/// The kinds of machines that a model is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// CPUs.
    pub cpu: bool,
    /// GPUs.
    pub cuda: bool,
}

impl Plans {
    /// Lowers a graph for each kind of machine. For GPUs it is fused first, which is exact.
    pub fn of(graph: &Graph, targets: Targets) -> Result<Self, CompileError> {
        let cpu = targets.cpu.then(|| lower(graph)).transpose()?;
        let cuda = targets.cuda.then(|| fused(graph)).transpose()?;
        Ok(Plans { cpu, cuda })
    }

    /// The plan whose sizes are shown: that for CPUs where there is one.
    pub fn shown(&self) -> Option<&Lowered> {
        self.cpu.as_ref().or(self.cuda.as_ref().map(|(_, lowered)| lowered))
    }
}

fn fused(graph: &Graph) -> Result<(Graph, Lowered), CompileError> {
    let mut fused = graph.clone();
    let fuse =
        fireq_passes::pipeline("fuse").map_err(|e| LowerError { op: "graph", reason: e.to_string() })?;
    fuse.run(&mut fused)?;
    let lowered = lower_fused(&fused)?;
    Ok((fused, lowered))
}

/// What a model's weights come from.
#[derive(Clone, Default)]
pub struct Origin {
    /// All that they depend on; what a compilation of the same key left half done is gone on with.
    pub key: String,
    /// The files that they are read from, which must not change meanwhile.
    pub sources: Sources,
}

/// Compiles a lowered model and writes the artifact that `partial` is for, with the report of its quantization if there is
/// one. `tell` is told how far it is.
pub fn build(
    model: &Model,
    plans: &Plans,
    recipe: &str,
    (report, origin): (Option<&Report>, &Origin),
    options: &BuildOptions,
    partial: &Partial,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Manifest, CompileError> {
    let cpu = plans.cpu.as_ref().map(|lowered| Stored::cpu(&model.graph, lowered));
    let cuda = plans.cuda.as_ref().map(|(graph, lowered)| Stored::cuda(graph, lowered));
    let build = Build {
        graph: &model.graph,
        plans: cpu.into_iter().chain(cuda).collect(),
        recipe,
        weightless: model.weightless,
        model: facts(model),
        copies: if model.weightless { vec![] } else { kept_files(&model.dir)? },
        texts: texts(report, &options.tuning),
        threads: options.threads,
        key: origin.key.clone(),
        sources: origin.sources.clone(),
    };
    Ok(write(&build, partial, |dir| code(plans, options, dir), tell)?)
}

/// As [`build`], without a report, without progress, and from the beginning.
pub fn build_anew(
    model: &Model,
    plans: &Plans,
    recipe: &str,
    options: &BuildOptions,
    out: &Path,
) -> Result<Manifest, CompileError> {
    let partial = Partial::open(out)?;
    partial.clear()?;
    build(model, plans, recipe, (None, &Origin::default()), options, &partial, &|_| ())
}

/// Files that say what was measured.
fn texts(report: Option<&Report>, tuning: &Tuning) -> Vec<(&'static str, String)> {
    let report = report.map(|report| (report::FILE, report.to_json()));
    let tuning = (!tuning.products.is_empty()).then(|| (tune::FILE, tuning.to_json()));
    report.into_iter().chain(tuning).collect()
}

/// Code for every kind of machine.
fn code(plans: &Plans, options: &BuildOptions, dir: &Path) -> Result<Code, ArtifactError> {
    let cuda = plans
        .cuda
        .as_ref()
        .map(|(_, lowered)| cuda::generate(&lowered.plan, &options.tuning, &options.cache, dir));
    let cuda = cuda.transpose().map_err(|e| ArtifactError::Code(Box::new(e)))?;
    let code =
        plans.cpu.as_ref().map_or_else(|| Ok(Code::default()), |lowered| cpu_code(lowered, options, dir))?;
    Ok(Code { cuda, ..code })
}

#[cfg(feature = "llvm")]
fn cpu_code(lowered: &Lowered, options: &BuildOptions, dir: &Path) -> Result<Code, ArtifactError> {
    generate(&lowered.plan, options.cpu, options.emit_llvm, dir)
}

#[cfg(not(feature = "llvm"))]
fn cpu_code(_: &Lowered, _: &BuildOptions, _: &Path) -> Result<Code, ArtifactError> {
    Err(ArtifactError::Code("this build has no LLVM, which CPU artifacts need".into()))
}
