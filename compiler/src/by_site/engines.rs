//! What executes the model and each of its sites: shared code and weights, or the interpreter.

use fireq_ir::Graph;
use fireq_ir::artifact::ModelFacts;

use super::BySiteError;
use crate::engine::{Backend, Engine};
use crate::interpreted::Interpreted;

/// Executes forms of one model, each on an empty sequence of at most `context` positions.
pub struct Engines {
    vocab: usize,
    context: usize,
    #[cfg(feature = "llvm")]
    code: Option<compiled::Code>,
}

impl Engines {
    /// On the interpreter: slow, and right by definition.
    pub fn interpreted(facts: &ModelFacts, context: usize) -> Self {
        Engines {
            vocab: facts.vocab,
            context,
            #[cfg(feature = "llvm")]
            code: None,
        }
    }

    /// Logits per row.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// An engine for a form of the model.
    pub fn engine(&self, graph: Graph) -> Result<Engine, BySiteError> {
        let backend = self.backend(graph)?;
        Ok(Engine::new(backend, self.vocab, self.context))
    }

    #[cfg(feature = "llvm")]
    fn backend(&self, graph: Graph) -> Result<Backend, BySiteError> {
        match &self.code {
            Some(code) => Ok(Backend::Compiled(Box::new(code.session(&graph, self.context)?))),
            None => Ok(Backend::Interpreter(Interpreted::new(graph))),
        }
    }

    #[cfg(not(feature = "llvm"))]
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "compiled code is held, and may be refused"
    )]
    fn backend(&self, graph: Graph) -> Result<Backend, BySiteError> {
        Ok(Backend::Interpreter(Interpreted::new(graph)))
    }
}

#[cfg(feature = "llvm")]
mod compiled {
    use std::path::PathBuf;
    use std::sync::{Mutex, PoisonError};

    use fireq_ir::Graph;
    use fireq_ir::artifact::ModelFacts;
    use fireq_ir::plan::{Lowered, lower};
    use fireq_runtime::{Executor, Limits, Session};
    use tempfile::TempDir;

    use super::Engines;
    use crate::by_site::{BySiteError, Site};
    use crate::evaluate::STEP;
    use crate::kernels::{Kernels, weights};

    /// One library with the kernels of every form.
    pub(super) struct Code {
        kernels: Mutex<Kernels>,
        library: PathBuf,
        threads: usize,
        _dir: TempDir,
    }

    impl Engines {
        /// As code for this machine, compiled once for the model and all its sites.
        pub fn compiled(
            facts: &ModelFacts,
            context: usize,
            (model, sites): (&Graph, &[Site]),
            threads: usize,
        ) -> Result<Self, BySiteError> {
            let mut kernels = Kernels::new();
            kernels.name(&mut lowered(model)?.plan);
            for site in sites {
                kernels.name(&mut lowered(&site.graph()?)?.plan);
            }
            let code = |error: &dyn ToString| BySiteError::Code(error.to_string());
            let dir = tempfile::Builder::new().prefix("fireq-").tempdir().map_err(|e| code(&e))?;
            let library = dir.path().join("kernels.so");
            kernels.compile(&library).map_err(|e| code(&e))?;
            let code = Code { kernels: Mutex::new(kernels), library, threads, _dir: dir };
            Ok(Engines { vocab: facts.vocab, context, code: Some(code) })
        }
    }

    fn lowered(graph: &Graph) -> Result<Lowered, BySiteError> {
        lower(graph).map_err(|source| BySiteError::Lower { site: graph.name.clone(), source })
    }

    impl Code {
        pub fn session(&self, graph: &Graph, context: usize) -> Result<Session, BySiteError> {
            let mut lowered = lowered(graph)?;
            self.kernels.lock().unwrap_or_else(PoisonError::into_inner).name(&mut lowered.plan);
            let weights = weights(graph, &lowered)?;
            let limits = Limits { tokens: context.min(STEP), context, threads: self.threads };
            Ok(Session::new(Executor::new(lowered.plan, weights, &self.library, limits)?)?)
        }
    }
}
