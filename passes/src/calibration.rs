//! What calibrated passes look at: the values of a graph on calibration data.
//!
//! A pass names the values that it wants to see, its taps, and is shown them one sequence after another, so that no more
//! than a sequence is in memory. Graphs are run as they are: a pass that wants to know what another form of a graph, or of a
//! piece of it, would give runs that form.

mod notes;
mod reference;

use std::sync::{Arc, Mutex, PoisonError};

use fireq_ir::interp::{Tensor, empty_caches, interpret};
use fireq_ir::{Graph, Op, PassError, ValueId};
use thiserror::Error;

use crate::journal::{Forgetful, Journal};
use crate::piece::Piece;
use crate::random::{Tensors, bindings, random_inputs, tokens};
pub(crate) use reference::Reference;

/// A graph could not be run on calibration data.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl From<RunError> for PassError {
    fn from(error: RunError) -> Self {
        PassError::Refused { site: "calibration".into(), reason: error.0 }
    }
}

/// A graph that is ready to run: from inputs by name to its outputs, on empty caches.
pub type Prepared<'a> = Box<dyn FnMut(&Tensors) -> Result<Vec<Tensor>, RunError> + 'a>;

/// Executes graphs on some backend.
pub trait Runner: Send + Sync {
    /// Makes a graph ready for sequences of at most `tokens`.
    fn prepare<'a>(&self, graph: &'a Graph, tokens: usize) -> Result<Prepared<'a>, RunError>;
}

/// The interpreter as a backend.
#[derive(Debug)]
pub struct Interpreter;

impl Runner for Interpreter {
    fn prepare<'a>(&self, graph: &'a Graph, _: usize) -> Result<Prepared<'a>, RunError> {
        let caches = empty_caches(graph);
        Ok(Box::new(move |inputs| {
            let outcome = interpret(graph, inputs, &caches).map_err(|e| RunError(e.to_string()))?;
            Ok(outcome.outputs)
        }))
    }
}

/// Calibration data, and what runs graphs on it.
pub struct Calibration {
    runner: Arc<dyn Runner>,
    sequences: Mutex<Sequences>,
    journal: Arc<dyn Journal>,
    findings: Mutex<notes::Notes>,
    reference: Mutex<Option<Arc<Reference>>>,
}

/// The inputs of each sequence.
#[derive(Clone)]
pub(crate) enum Sequences {
    /// Random ones for whatever graph is looked at.
    Random,
    /// To be made when a pass asks for the first time.
    Awaited(Arc<dyn Fn() -> Result<Vec<Tensors>, RunError> + Send + Sync>),
    /// As they are.
    Given(Arc<Vec<Tensors>>),
}

/// Tokens of a random sequence, and how many of them there are.
const RANDOM: (usize, u64) = (24, 4);

impl Calibration {
    /// Random inputs for whatever graph is looked at, on the interpreter: for graphs that stand alone.
    pub fn random() -> Self {
        Calibration::of(Arc::new(Interpreter), Sequences::Random)
    }

    /// What `load` gives, once a pass asks: for a language model `tokens`, `positions` and `select` of each sequence.
    pub fn new(
        runner: Arc<dyn Runner>,
        load: impl Fn() -> Result<Vec<Tensors>, RunError> + Send + Sync + 'static,
    ) -> Self {
        Calibration::of(runner, Sequences::Awaited(Arc::new(load)))
    }

    fn of(runner: Arc<dyn Runner>, sequences: Sequences) -> Self {
        let (sequences, findings, reference) = (Mutex::new(sequences), Mutex::default(), Mutex::default());
        Calibration { runner, sequences, journal: Arc::new(Forgetful), findings, reference }
    }

    /// With a journal of walks over blocks.
    #[must_use]
    pub fn with_journal(self, journal: Arc<dyn Journal>) -> Self {
        Calibration { journal, ..self }
    }

    pub(crate) fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    /// The same runner with other sequences.
    pub(crate) fn on(&self, sequences: Vec<Tensors>) -> Self {
        Calibration::of(self.runner.clone(), Sequences::Given(Arc::new(sequences)))
    }

    /// The inputs of a piece of `graph` on each of the first `most` sequences.
    pub(crate) fn inputs_of(
        &self,
        graph: &Graph,
        piece: &Piece,
        most: usize,
    ) -> Result<Vec<Tensors>, RunError> {
        let taps: Vec<ValueId> = piece.inputs.values().copied().collect();
        let mut found: Vec<Tensors> = vec![];
        for (name, values) in piece.inputs.keys().zip(self.values(graph, &taps, most)?) {
            found.resize(values.len(), Tensors::new());
            found.iter_mut().zip(values).for_each(|(inputs, value)| drop(inputs.insert(name.clone(), value)));
        }
        Ok(found)
    }

    /// Every tap of `graph` on each of the first `most` sequences.
    pub(crate) fn values(
        &self,
        graph: &Graph,
        taps: &[ValueId],
        most: usize,
    ) -> Result<Vec<Vec<Tensor>>, RunError> {
        let mut found = vec![vec![]; taps.len()];
        self.observe(graph, taps, most, |tap, tensor| found[tap].push(tensor.clone()))?;
        Ok(found)
    }

    /// Puts other sequences in place, and returns those that were there.
    pub(crate) fn exchange(&self, with: Sequences) -> Sequences {
        std::mem::replace(&mut self.sequences.lock().unwrap_or_else(PoisonError::into_inner), with)
    }

    /// The inputs of each sequence for `graph`.
    fn sequences(&self, graph: &Graph) -> Result<Arc<Vec<Tensors>>, RunError> {
        let mut sequences = self.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sequences::Awaited(load) = &*sequences {
            *sequences = Sequences::Given(Arc::new(load()?));
        }
        let (tokens, count) = RANDOM;
        let random = |n| random_inputs(graph, &bindings(tokens, 0, tokens), 11 + n).0;
        Ok(match &*sequences {
            Sequences::Given(given) => given.clone(),
            _ => Arc::new((0..count).map(random).collect()),
        })
    }

    /// Shows `see` every tap of `graph` on each of the first `most` sequences: the tap's
    /// place in `taps`, and its rows.
    pub(crate) fn observe(
        &self,
        graph: &Graph,
        taps: &[ValueId],
        most: usize,
        mut see: impl FnMut(usize, &Tensor),
    ) -> Result<(), RunError> {
        let sequences = self.sequences(graph)?;
        let input = |tap: &ValueId| match graph.op(*tap) {
            Op::Input { name } => Some(name.to_string()),
            _ => None,
        };
        let mut tapped = graph.clone();
        tapped.outputs = taps.iter().copied().filter(|tap| input(tap).is_none()).collect();
        tapped.outputs.sort_unstable();
        tapped.outputs.dedup();
        let places: Vec<usize> =
            taps.iter().map(|tap| tapped.outputs.iter().position(|v| v == tap).unwrap_or(0)).collect();
        let longest = sequences.iter().map(|inputs| tokens(graph, inputs)).max().unwrap_or(1);
        let mut run = self.runner.prepare(&tapped, longest)?;
        for inputs in sequences.iter().take(most) {
            let outputs = if tapped.outputs.is_empty() { vec![] } else { run(inputs)? };
            for (at, tap) in taps.iter().enumerate() {
                let tensor = match input(tap) {
                    Some(name) => inputs.get(&name).ok_or_else(|| RunError(format!("no input `{name}`")))?,
                    None => &outputs[places[at]],
                };
                see(at, tensor);
            }
        }
        Ok(())
    }
}
