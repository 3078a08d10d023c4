//! What a graph was before it was quantized.

use std::sync::{Arc, OnceLock, PoisonError};

use fireq_ir::interp::Tensor;
use fireq_ir::{Graph, ValueId};

use super::{Calibration, RunError};
use crate::random::Tensors;

/// A graph in which nothing is quantized, on inputs before which nothing is quantized either.
pub(crate) struct Reference {
    pub graph: Graph,
    /// Of each sequence, in the order of those that passes are shown.
    inputs: Vec<Tensors>,
    output: OnceLock<Vec<Tensor>>,
}

impl Reference {
    pub fn new(graph: Graph, inputs: Vec<Tensors>) -> Self {
        Reference { graph, inputs, output: OnceLock::new() }
    }

    /// Every tap on each sequence. `to_the_end` looks at the graph's output as well, which is kept.
    pub fn values(
        &self,
        calibration: &Calibration,
        taps: &[ValueId],
        to_the_end: bool,
    ) -> Result<Vec<Vec<Tensor>>, RunError> {
        let end = self.graph.outputs.iter().take(usize::from(to_the_end));
        let taps: Vec<ValueId> = taps.iter().chain(end).copied().collect();
        let mut found = calibration.on(self.inputs.clone()).values(&self.graph, &taps, usize::MAX)?;
        if let Some(output) = to_the_end.then(|| found.pop()).flatten() {
            // Who looks twice finds the same.
            let _ = self.output.set(output);
        }
        Ok(found)
    }

    /// The graph's output on each sequence, where somebody looked that far.
    pub fn output(&self) -> Option<&[Tensor]> {
        self.output.get().map(Vec::as_slice)
    }
}

impl Calibration {
    /// What the graph was that passes work on, where that is known.
    pub(crate) fn reference(&self) -> Option<Arc<Reference>> {
        self.reference.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on passes work on a graph with this reference, or on one without.
    pub(crate) fn refer_to(&self, reference: Option<Reference>) {
        *self.reference.lock().unwrap_or_else(PoisonError::into_inner) = reference.map(Arc::new);
    }
}
