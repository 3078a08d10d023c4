//! A sequence of tokens run through a language model.

use std::ops::Range;

use fireq_ir::Dim;
use fireq_ir::plan::{Place, Plan, Step};
use fireq_kernels::cuda::params::Draw;

use crate::cuda::{self, Gpu, Piece, Room};
use crate::{Artifact, Compared, Executor, Limits, Ran, RuntimeError, pick};

/// Which rows of logits a call wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// One row for each token.
    All,
    /// The row of the last token only.
    Last,
}

/// The state of one sequence: what has been read so far is in the caches.
pub struct Session {
    device: Device,
    vocab: usize,
    past: usize,
}

/// What executes steps.
enum Device {
    Cpu(Box<Executor>),
    /// With the pages of the only sequence.
    Cuda(Box<cuda::Executor>, Vec<u32>),
}

impl Session {
    /// A session over an artifact. A context beyond the model's is cut to it.
    pub fn open(artifact: &Artifact, limits: Limits) -> Result<Self, RuntimeError> {
        let limits = Limits { context: limits.context.min(artifact.manifest.model.context), ..limits };
        let executor =
            Executor::new(artifact.plan.clone(), artifact.weights()?, &artifact.library(), limits)?;
        Self::new(executor)
    }

    /// As [`Session::open`], on a GPU.
    pub fn open_on(gpu: &Gpu, artifact: &Artifact, limits: Limits) -> Result<Self, RuntimeError> {
        let room = Room::of_one(limits.context.min(artifact.manifest.model.context), limits.tokens);
        let executor = cuda::Executor::new(gpu, artifact, room)?;
        let pages = (0..executor.room().pages as u32).collect();
        let vocab = vocab(executor.plan())?;
        Ok(Session { device: Device::Cuda(Box::new(executor), pages), vocab, past: 0 })
    }

    /// A session over an executor whose plan takes `tokens`, `positions` and `select`, and gives `logits`.
    pub fn new(executor: Executor) -> Result<Self, RuntimeError> {
        let vocab = vocab(executor.plan())?;
        Ok(Session { device: Device::Cpu(Box::new(executor)), vocab, past: 0 })
    }

    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.past
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.past == 0
    }

    /// Width of a row of logits.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Forgets everything read.
    pub fn reset(&mut self) {
        self.past = 0;
    }

    /// Reads tokens and returns the logits of the selected ones, row after row. Long inputs are read in steps of at
    /// most [`Limits::tokens`]. A token that the model does not have, or one too many, is an error before any is read.
    pub fn forward(&mut self, tokens: &[u32], select: Select) -> Result<Vec<f32>, RuntimeError> {
        self.check(tokens)?;
        let (most, _) = self.limits();
        let mut logits = vec![];
        let last = tokens.len().div_ceil(most);
        for (n, chunk) in tokens.chunks(most).enumerate() {
            let rows = match select {
                Select::All => 0..chunk.len(),
                Select::Last if n + 1 == last => chunk.len() - 1..chunk.len(),
                Select::Last => 0..0,
            };
            self.step(chunk, rows, &mut logits)?;
        }
        Ok(logits)
    }

    /// Reads tokens, at least one, and returns the token that a draw takes from the logits of the last, which stay where they are.
    pub fn next(&mut self, tokens: &[u32], draw: &Draw) -> Result<u32, RuntimeError> {
        self.check(tokens)?;
        let Some(before) = tokens.len().checked_sub(1) else {
            return Err(RuntimeError::Step("nothing follows no tokens".into()));
        };
        let (most, _) = self.limits();
        let (read, last) = tokens.split_at(before / most * most);
        for chunk in read.chunks(most) {
            self.step(chunk, 0..0, &mut vec![])?;
        }
        match &mut self.device {
            Device::Cuda(executor, pages) if executor.chooses() => {
                let selected = last.len() - 1..last.len();
                let piece = Piece { tokens: last, past: self.past, pages, selected };
                let chosen = executor.choose(&[piece], &[*draw])?;
                self.past += last.len();
                chosen.first().copied().ok_or_else(|| RuntimeError::Kernel("sample".into()))
            }
            _ => Ok(pick(&self.forward(last, Select::Last)?, draw)),
        }
    }

    /// Reads tokens as [`Session::forward`] does, in steps, and compares every launch of each with the interpreter. All of them
    /// are selected.
    pub fn compare(&mut self, tokens: &[u32]) -> Result<Vec<Compared>, RuntimeError> {
        self.check(tokens)?;
        let (most, mut compared) = (self.limits().0, vec![]);
        for chunk in tokens.chunks(most) {
            let (past, rows) = (self.past, 0..chunk.len());
            compared.extend(match &mut self.device {
                Device::Cpu(executor) => {
                    let step = set_step(executor, chunk, past, rows)?;
                    executor.compare(step)?
                }
                Device::Cuda(executor, pages) => {
                    executor.compare(&Piece { tokens: chunk, past, pages, selected: rows })?
                }
            });
            self.past += chunk.len();
        }
        Ok(compared)
    }

    /// On a GPU, starts the launches of every step one by one from now on, and no graphs.
    pub fn without_graphs(&mut self) {
        if let Device::Cuda(executor, _) = &mut self.device {
            executor.keep_graphs(0);
        }
    }

    /// Notes from now on when launches run, and gives what was noted before.
    pub fn trace(&mut self) -> Result<Vec<Ran>, RuntimeError> {
        match &mut self.device {
            Device::Cpu(executor) => Ok(executor.trace()),
            Device::Cuda(executor, _) => executor.trace(),
        }
    }

    /// The most tokens of a step, and of the sequence.
    fn limits(&self) -> (usize, usize) {
        match &self.device {
            Device::Cpu(executor) => (executor.limits().tokens, executor.limits().context),
            Device::Cuda(executor, _) => (executor.room().tokens, executor.room().context),
        }
    }

    fn check(&self, tokens: &[u32]) -> Result<(), RuntimeError> {
        let (count, past, (_, context)) = (tokens.len(), self.past, self.limits());
        if count > context.saturating_sub(past) {
            return Err(RuntimeError::Step(format!(
                "{count} tokens after {past} exceed the context of {context}"
            )));
        }
        match tokens.iter().find(|token| **token as usize >= self.vocab) {
            Some(token) => {
                Err(RuntimeError::Step(format!("token {token} is outside the vocabulary of {}", self.vocab)))
            }
            None => Ok(()),
        }
    }

    fn step(
        &mut self,
        tokens: &[u32],
        rows: Range<usize>,
        logits: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        match &mut self.device {
            Device::Cpu(executor) => {
                let step = set_step(executor, tokens, self.past, rows)?;
                executor.run(step)?;
                logits.extend_from_slice(executor.output("logits", step.selected).unwrap_or(&[]));
            }
            Device::Cuda(executor, pages) => {
                executor.run(&[Piece { tokens, past: self.past, pages, selected: rows }])?;
                logits.extend(executor.logits()?);
            }
        }
        self.past += tokens.len();
        Ok(())
    }
}

/// A step on CPUs, with its inputs set.
fn set_step(
    executor: &mut Executor,
    tokens: &[u32],
    past: usize,
    rows: Range<usize>,
) -> Result<Step, RuntimeError> {
    let step = Step { tokens: tokens.len(), past, selected: rows.len() };
    let id = |t: &u32| i32::try_from(*t).unwrap_or(i32::MAX);
    executor.set_indices("tokens", tokens.iter().map(id))?;
    executor.set_indices("positions", (past..past + tokens.len()).map(|p| p as i32))?;
    executor.set_indices("select", rows.map(|r| r as i32))?;
    Ok(step)
}

/// Width of a row of logits of a plan that takes `tokens`, `positions` and `select`, and gives `logits`.
fn vocab(plan: &Plan) -> Result<usize, RuntimeError> {
    let missing = |what: &str| RuntimeError::NotALanguageModel(format!("there is no {what}"));
    let has = |name: &str| plan.buffers.iter().any(|b| matches!(&b.place, Place::Input(n) if &**n == name));
    if let Some(name) = ["tokens", "positions", "select"].into_iter().find(|name| !has(name)) {
        return Err(missing(&format!("input `{name}`")));
    }
    let logits = plan.buffers.iter().find(|b| matches!(&b.place, Place::Output(n) if &**n == "logits"));
    let logits = logits
        .filter(|b| b.ty.shape.rows() == Dim::sym("L"))
        .ok_or_else(|| missing("output `logits` of L rows"))?;
    Ok(logits.ty.shape.cols().fixed().unwrap_or(0))
}
