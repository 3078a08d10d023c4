//! What a graph was before it was quantized.

use std::sync::{Arc, PoisonError};

use fireq_ir::Graph;

use super::Calibration;
use crate::random::Tensors;

/// A graph in which nothing is quantized, on inputs before which nothing is quantized either.
pub(crate) struct Reference {
    pub graph: Graph,
    /// Of each sequence, in the order of those that passes are shown.
    pub inputs: Vec<Tensors>,
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
