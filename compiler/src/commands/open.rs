//! Opening the model that a command executes.

use std::path::{Path, PathBuf};

use fireq::compile::facts;
use fireq::engine::{Backend, Engine};
use fireq::import::import_with;
use fireq::interpreted::Interpreted;
use fireq::source::{Source, classify};
use fireq::tokens::Tokens;
use fireq_ir::Graph;
use fireq_ir::artifact::ModelFacts;
use fireq_runtime::cuda::{Executor, Gpu, Room};
use fireq_runtime::{Artifact, Limits, RuntimeError, Session};
use tempfile::TempDir;

use crate::cli::{Device, Executed};
use crate::failure::{Failure, Outcome};

/// A model ready to run, with what its directory says about text.
pub struct Opened {
    /// Its name.
    pub name: String,
    /// Most positions of a sequence.
    pub context: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Threads that run it.
    pub threads: usize,
    /// Whether a GPU starts steps by graphs.
    graphs: bool,
    bos: Option<u32>,
    dir: PathBuf,
    code: Code,
}

enum Code {
    Interpreter(Graph),
    Compiled {
        artifact: Box<Artifact>,
        /// Holds an artifact that was compiled for this run only.
        _temporary: Option<TempDir>,
    },
    Cuda(Box<Artifact>, Gpu),
}

/// Tokens of one step: bounds the memory for activations and logits.
const STEP: usize = 512;

impl Opened {
    /// The model's tokenizer.
    pub fn tokens(&self) -> Outcome<Tokens> {
        Ok(Tokens::load(&self.dir, self.bos)?)
    }

    /// An empty sequence of at most `context` positions, fewer where the model has fewer.
    pub fn engine(&self, context: usize) -> Outcome<Engine> {
        let context = context.min(self.context);
        let backend = match &self.code {
            Code::Interpreter(graph) => Backend::Interpreter(Interpreted::new(graph.clone())),
            Code::Compiled { artifact, .. } => {
                let limits = Limits { tokens: context.min(STEP), context, threads: self.threads };
                Backend::Compiled(Box::new(Session::open(artifact, limits)?))
            }
            Code::Cuda(artifact, gpu) => {
                let limits = Limits { tokens: context.min(STEP), context, threads: self.threads };
                let mut session = Session::open_on(gpu, artifact, limits)?;
                if !self.graphs {
                    session.without_graphs();
                }
                Backend::Compiled(Box::new(session))
            }
        };
        Ok(Engine::new(backend, self.vocab, context))
    }

    /// The artifact on its GPU, for steps of several sequences.
    pub fn executor(&self, room: Room) -> Outcome<Executor> {
        match &self.code {
            Code::Cuda(artifact, gpu) => {
                let mut executor = Executor::new(gpu, artifact, room)?;
                if !self.graphs {
                    executor.keep_graphs(0);
                }
                Ok(executor)
            }
            _ => Err(Failure::new("this runs on GPUs").hint("use --device cuda")),
        }
    }
}

/// Opens what `options` name.
pub fn open(options: &Executed) -> Outcome<Opened> {
    set_threads(options.threads)?;
    open_path(options.path(), options)
}

/// Opens a model directory or an artifact in the way that `options` say.
pub fn open_path(path: &Path, options: &Executed) -> Outcome<Opened> {
    match classify(path)? {
        Source::Artifact => open_artifact(path, options),
        Source::ModelDir if options.device == Device::Cuda => {
            let message = format!("`{}` is a model directory, which is executed on CPUs", path.display());
            Err(Failure::new(message).hint("compile it with --target sm_90a and execute the artifact"))
        }
        Source::ModelDir => open_model(path, options),
        Source::Config => {
            let message = format!("`{}` is a configuration without weights", path.display());
            Err(Failure::new(message).hint("give the directory that holds it and the weights"))
        }
        Source::Ir => {
            let message = format!("`{}` is text IR, which has no weights to run", path.display());
            Err(Failure::new(message).hint("give the model directory or the artifact it came from"))
        }
    }
}

fn open_artifact(path: &Path, options: &Executed) -> Outcome<Opened> {
    let on_gpu = options.device == Device::Cuda;
    let artifact = if on_gpu { Artifact::open_for_gpu(path)? } else { Artifact::open(path)? };
    if artifact.manifest.weightless {
        return Err(RuntimeError::Weightless.into());
    }
    let (name, facts) = (artifact.manifest.name.clone(), artifact.manifest.model.clone());
    let code = if on_gpu {
        Code::Cuda(Box::new(artifact), Gpu::open(0).map_err(RuntimeError::from)?)
    } else {
        compiled(artifact, None)
    };
    Ok(opened(name, facts, path, code, options))
}

fn compiled(artifact: Artifact, temporary: Option<TempDir>) -> Code {
    Code::Compiled { artifact: Box::new(artifact), _temporary: temporary }
}

fn opened(name: String, facts: ModelFacts, dir: &Path, code: Code, options: &Executed) -> Opened {
    Opened {
        name,
        context: facts.context,
        vocab: facts.vocab,
        eos: facts.eos,
        threads: options.threads(),
        graphs: !options.no_graphs,
        bos: facts.bos,
        dir: dir.into(),
        code,
    }
}

/// The unquantized reference: interpreted, or compiled to an artifact that lives as long as the run.
fn open_model(dir: &Path, options: &Executed) -> Outcome<Opened> {
    let model = import_with(dir, options.import.options())?;
    let (name, facts) = (model.config.name.clone(), facts(&model));
    #[cfg(feature = "llvm")]
    if !options.interpret {
        let (artifact, temporary) = super::reference::compile(model, options)?;
        return Ok(opened(name, facts, dir, compiled(artifact, Some(temporary)), options));
    }
    Ok(opened(name, facts, dir, Code::Interpreter(model.graph), options))
}

/// Sets the number of threads of everything that runs in parallel.
pub fn set_threads(threads: Option<usize>) -> Outcome {
    let Some(threads) = threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build_global();
    pool.map_err(|e| Failure::from_error(&e).within("cannot start threads"))
}
