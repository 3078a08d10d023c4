//! A model that takes tokens and gives logits, however it is executed.

use thiserror::Error;

use fireq_ir::interp::InterpError;
use fireq_runtime::{Compared, Draw, Ran, RuntimeError, Select, Session, pick};

use crate::interpreted::Interpreted;

/// A sequence in progress on some backend, with the limits of its model.
pub struct Engine {
    backend: Backend,
    vocab: usize,
    context: usize,
    past: usize,
}

/// What executes the model.
pub enum Backend {
    /// The interpreter.
    Interpreter(Interpreted),
    /// Compiled code.
    Compiled(Box<Session>),
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A token id that the model does not have.
    #[error("token {token} is outside the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// More positions than the model has.
    #[error("{wanted} tokens do not fit the context of {context}")]
    Context {
        /// Tokens wanted.
        wanted: usize,
        /// Most tokens of a sequence.
        context: usize,
    },
    /// No tokens at all.
    #[error("there are no tokens to run")]
    Empty,
    /// There are no launches.
    #[error("the model is run by the interpreter, which launches nothing")]
    Oracle,
    /// The interpreter refused the graph or its data.
    #[error(transparent)]
    Interp(#[from] InterpError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl EngineError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            EngineError::Token { .. } => "token ids count from 0; use the model's own tokenizer",
            EngineError::Context { .. } => "give fewer tokens",
            EngineError::Oracle => "leave out --interpret",
            EngineError::Empty => "give a prompt or tokens",
            EngineError::Runtime(error) => error.hint().unwrap_or("compile the model again"),
            EngineError::Interp(_) => "the weights may be damaged: download the model again",
        }
    }
}

impl Engine {
    /// An empty sequence of a model with `vocab` tokens and at most `context` positions.
    pub fn new(backend: Backend, vocab: usize, context: usize) -> Self {
        Engine { backend, vocab, context, past: 0 }
    }

    /// Logits per row.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Most positions of a sequence.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.past = 0;
        match &mut self.backend {
            Backend::Interpreter(interpreted) => interpreted.reset(),
            Backend::Compiled(session) => session.reset(),
        }
    }

    /// Appends tokens; returns the logits of each, `tokens × vocab`.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.step(tokens, Select::All)
    }

    /// Appends tokens; returns the logits of the last, `vocab` of them.
    pub fn last_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.step(tokens, Select::Last)
    }

    /// Appends tokens; returns the one that a draw takes from the logits of the last, where they are.
    pub fn next(&mut self, tokens: &[u32], draw: &Draw) -> Result<u32, EngineError> {
        self.check(tokens)?;
        let token = match &mut self.backend {
            Backend::Interpreter(interpreted) => pick(&interpreted.step(tokens, Select::Last)?, draw),
            Backend::Compiled(session) => session.next(tokens, draw)?,
        };
        self.past += tokens.len();
        Ok(token)
    }

    /// Appends tokens, and compares every launch of the compiled plan with the interpreter.
    pub fn compare(&mut self, tokens: &[u32]) -> Result<Vec<Compared>, EngineError> {
        self.check(tokens)?;
        let compared = match &mut self.backend {
            Backend::Interpreter(_) => return Err(EngineError::Oracle),
            Backend::Compiled(session) => session.compare(tokens)?,
        };
        self.past += tokens.len();
        Ok(compared)
    }

    /// Notes from now on when launches run, and gives what was noted before.
    pub fn trace(&mut self) -> Result<Vec<Ran>, EngineError> {
        match &mut self.backend {
            Backend::Interpreter(_) => Err(EngineError::Oracle),
            Backend::Compiled(session) => Ok(session.trace()?),
        }
    }

    fn check(&self, tokens: &[u32]) -> Result<(), EngineError> {
        let (vocab, context, wanted) = (self.vocab, self.context, self.past + tokens.len());
        if tokens.is_empty() {
            return Err(EngineError::Empty);
        }
        if let Some(token) = tokens.iter().copied().find(|t| *t as usize >= vocab) {
            return Err(EngineError::Token { token, vocab });
        }
        if wanted > context {
            return Err(EngineError::Context { wanted, context });
        }
        Ok(())
    }

    fn step(&mut self, tokens: &[u32], select: Select) -> Result<Vec<f32>, EngineError> {
        self.check(tokens)?;
        let logits = match &mut self.backend {
            Backend::Interpreter(interpreted) => interpreted.step(tokens, select)?,
            Backend::Compiled(session) => session.forward(tokens, select)?,
        };
        self.past += tokens.len();
        Ok(logits)
    }
}
