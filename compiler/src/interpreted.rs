//! A model executed by the interpreter: slow, and right by definition.

use std::collections::BTreeMap;

use fireq_ir::Graph;
use fireq_ir::interp::{InterpError, Tensor, empty_caches, interpret};
use fireq_runtime::Select;

/// A sequence in progress on the interpreter.
#[derive(Debug)]
pub struct Interpreted {
    graph: Graph,
    caches: BTreeMap<String, Tensor>,
    past: usize,
}

impl Interpreted {
    /// An empty sequence. The graph has inputs `tokens`, `positions` and `select`.
    pub fn new(graph: Graph) -> Self {
        let caches = empty_caches(&graph);
        Interpreted { graph, caches, past: 0 }
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        (self.caches, self.past) = (empty_caches(&self.graph), 0);
    }

    /// Appends tokens and returns the logits of the selected ones, row-major.
    pub fn step(&mut self, tokens: &[u32], select: Select) -> Result<Vec<f32>, InterpError> {
        let first = if select == Select::All { 0 } else { tokens.len().saturating_sub(1) };
        let select: Vec<i32> = (first as i32..tokens.len() as i32).collect();
        let tokens: Vec<i32> = tokens.iter().map(|t| *t as i32).collect();
        let positions: Vec<i32> = (self.past..self.past + tokens.len()).map(|p| p as i32).collect();
        let inputs = [("tokens", &tokens), ("positions", &positions), ("select", &select)];
        let inputs = inputs.map(|(name, values)| (name.to_string(), Tensor::from_i32(values)));
        let outcome = interpret(&self.graph, &BTreeMap::from(inputs), &self.caches)?;
        self.caches = outcome.caches;
        self.past += tokens.len();
        Ok(outcome.outputs.first().map(Tensor::to_f32).unwrap_or_default())
    }
}
