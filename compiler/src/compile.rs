//! The compile driver: passes, then the plan, then the artifact.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fireq_codegen::artifact::ArtifactError;
use fireq_ir::artifact::ModelFacts;
use fireq_ir::plan::{LowerError, Lowered, Place, parts};
use fireq_ir::{Graph, Pass, PassError, run_pipeline};
use thiserror::Error;

use crate::import::{ImportError, Model};

/// Why a model was not compiled. Nothing is left behind.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The model was refused.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A pass failed.
    #[error("pass `{pass}` failed")]
    Pass {
        /// Its id.
        pass: String,
        /// Why.
        source: PassError,
    },
    /// No plan can hold the graph.
    #[error("the graph does not lower to a plan")]
    Lower(#[from] LowerError),
    /// No artifact was written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The IR could not be dumped.
    #[error("cannot write `{}`", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CompileError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            CompileError::Import(error) => error.hint(),
            CompileError::Pass { .. } => {
                "dump the IR before it with --dump-ir, or leave it out with --passes"
            }
            CompileError::Lower(_) => {
                "run a whole recipe: passes bring a graph into the form that plans hold"
            }
            CompileError::Artifact(ArtifactError::Exists(_)) => {
                "give another path, or remove what is there: only artifacts are replaced"
            }
            CompileError::Artifact(ArtifactError::NonFinite { .. }) => {
                "the checkpoint is damaged or diverged in training: download it again"
            }
            CompileError::Artifact(_) | CompileError::Dump { .. } => {
                "the output needs a directory that can be written, with room for the weights; `fireq doctor` checks \
                 the rest"
            }
        }
    }
}

/// Runs passes over a graph, at most `limit` patches in all; `after` sees the graph after each, with the number of
/// patches applied.
pub fn transform(
    graph: &mut Graph,
    passes: &[Box<dyn Pass>],
    limit: usize,
    mut after: impl FnMut(&dyn Pass, &Graph, usize) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let mut done = 0;
    let result = run_pipeline(passes, graph, limit, |pass, graph, applied| {
        done += 1;
        after(pass, graph, applied).map_err(Stop::Observer)
    });
    result.map_err(|stop| match stop {
        Stop::Observer(error) => error,
        Stop::Pass(source) => {
            let pass = passes.get(done).map_or_else(String::new, |p| p.id().to_string());
            CompileError::Pass { pass, source }
        }
    })
}

enum Stop {
    Pass(PassError),
    Observer(CompileError),
}

impl From<PassError> for Stop {
    fn from(error: PassError) -> Self {
        Stop::Pass(error)
    }
}

/// Bytes that an artifact's parts take, known before any weight is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// `weights.safetensors` without its header.
    pub weights: u64,
    /// All KV caches, per position.
    pub cache_per_token: u64,
    /// Scratch of a step, per token.
    pub arena_per_token: u64,
}

/// The sizes that a plan implies.
pub fn sizes(lowered: &Lowered) -> Sizes {
    let plan = &lowered.plan;
    let mut sizes = Sizes { arena_per_token: plan.arena_bytes_per_token as u64, ..Sizes::default() };
    let mut caches = BTreeMap::new();
    for buffer in &plan.buffers {
        let parts = parts(&buffer.ty, buffer.storage).unwrap_or_default();
        let row: u64 = parts.iter().map(|part| part.row_bytes() as u64).sum();
        match &buffer.place {
            Place::Weight(_) => sizes.weights += row * buffer.ty.shape.rows().fixed().unwrap_or(0) as u64,
            Place::Cache(name) => drop(caches.insert(name.clone(), row)),
            _ => {}
        }
    }
    sizes.cache_per_token = caches.values().sum();
    sizes
}

/// What an artifact says about the model.
pub fn facts(model: &Model) -> ModelFacts {
    let config = &model.config;
    ModelFacts { context: config.context, vocab: config.vocab, bos: config.bos, eos: config.eos.clone() }
}

/// The files of a model directory that an artifact keeps.
pub fn kept_files(dir: &Path) -> Vec<PathBuf> {
    let names = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];
    names.into_iter().map(|name| dir.join(name)).filter(|path| path.is_file()).collect()
}

/// How an artifact is built; none of it changes what the artifact computes.
#[cfg(feature = "llvm")]
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions {
    /// The machines that code is for.
    pub cpu: fireq_codegen::llvm::Cpu,
    /// Keep the LLVM IR, as `cpu/model.ll`.
    pub emit_llvm: bool,
    /// Threads that pack weights.
    pub threads: usize,
}

/// Compiles a lowered model and writes its artifact. `progress` is told bytes of weights done and in all.
#[cfg(feature = "llvm")]
pub fn build(
    model: &Model,
    lowered: &Lowered,
    recipe: &str,
    options: BuildOptions,
    out: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<fireq_ir::artifact::Manifest, CompileError> {
    let build = fireq_codegen::artifact::Build {
        graph: &model.graph,
        lowered,
        recipe,
        model: facts(model),
        copies: kept_files(&model.dir),
        threads: options.threads,
    };
    let generate = |dir: &Path| generate(lowered, options, dir);
    Ok(fireq_codegen::artifact::write(&build, out, generate, progress)?)
}

#[cfg(feature = "llvm")]
fn generate(
    lowered: &Lowered,
    options: BuildOptions,
    dir: &Path,
) -> Result<fireq_codegen::artifact::Code, ArtifactError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ArtifactError::Io { path, source }
    };
    let library = dir.join(fireq_ir::artifact::CPU_LIBRARY);
    let folder = library.parent().unwrap_or(dir);
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let module = fireq_codegen::llvm::compile(&lowered.plan, options.cpu, &library)
        .map_err(|e| ArtifactError::Code(Box::new(e)))?;
    if options.emit_llvm {
        let path = library.with_extension("ll");
        std::fs::write(&path, &module.ll).map_err(io(&path))?;
    }
    let target = fireq_ir::artifact::Target {
        arch: std::env::consts::ARCH.into(),
        triple: module.triple,
        features: module.features,
    };
    Ok(fireq_codegen::artifact::Code { target, kernels: reasons(lowered) })
}

/// Why each kernel is the way it is. The CPU backend specializes for types and has one way for each.
#[cfg(feature = "llvm")]
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
