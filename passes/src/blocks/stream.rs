//! The residual stream on its way through the blocks.

use std::collections::{BTreeMap, BTreeSet};

use fireq_ir::interp::Tensor;
use fireq_ir::{Graph, PassError, ValueId};

use super::piece::Block;
use crate::calibration::{Calibration, RunError};
use crate::random::Tensors;

/// The residual stream between two blocks, and what all blocks read beside it.
pub(super) struct Stream {
    /// On each sequence.
    pub x: Vec<Tensor>,
    /// The same, had no block changed.
    pub unchanged: Vec<Tensor>,
    beside: BTreeMap<ValueId, Vec<Tensor>>,
}

impl Stream {
    pub fn at_first(calibration: &Calibration, graph: &Graph, blocks: &[Block]) -> Result<Self, PassError> {
        let beside: BTreeSet<ValueId> = blocks
            .iter()
            .flat_map(|block| block.inputs.values().copied().filter(|v| *v != block.start))
            .collect();
        let taps: Vec<ValueId> =
            blocks.first().map(|b| b.start).into_iter().chain(beside.iter().copied()).collect();
        let mut found = calibration.values(graph, &taps, usize::MAX)?.into_iter();
        let x = found.next().unwrap_or_default();
        if x.is_empty() {
            return Err(RunError("there are no sequences".into()).into());
        }
        Ok(Stream { unchanged: x.clone(), x, beside: beside.into_iter().zip(found).collect() })
    }

    /// Everything that moves.
    pub fn tensors(&self) -> Vec<&Tensor> {
        self.x.iter().chain(&self.unchanged).collect()
    }

    /// Takes what [`Stream::tensors`] gave up before; false where it does not fit, and nothing is taken.
    pub fn resume(&mut self, mut tensors: Vec<Tensor>) -> bool {
        let now = self.tensors();
        let fits = now.len() == tensors.len() && now.iter().zip(&tensors).all(|(a, b)| a.ty == b.ty);
        if fits {
            self.unchanged = tensors.split_off(self.x.len());
            self.x = tensors;
        }
        fits
    }

    /// The inputs of a block on each sequence, where the stream is `x`.
    pub fn inputs(&self, block: &Block, x: &[Tensor]) -> Vec<Tensors> {
        x.iter().enumerate().map(|(n, x)| self.inputs_with(block, n, x)).collect()
    }

    /// The inputs of a block on a sequence where the stream is `x`.
    pub fn inputs_with(&self, block: &Block, sequence: usize, x: &Tensor) -> Tensors {
        let of =
            |value: &ValueId| if *value == block.start { x } else { &self.beside[value][sequence] }.clone();
        block.inputs.iter().map(|(name, value)| (name.clone(), of(value))).collect()
    }

    /// Goes through a block as it is `after`. Returns the stream on the first sequence as it was before.
    pub fn advance(
        &mut self,
        calibration: &Calibration,
        block: &Block,
        after: &Graph,
    ) -> Result<Tensor, RunError> {
        let reference = calibration.reference();
        self.unchanged = if let Some(seen) = reference.as_ref().and_then(|reference| reference.output()) {
            seen.to_vec()
        } else {
            let unchanged = calibration.on(self.inputs(block, &self.unchanged));
            unchanged.values(&block.graph, &block.graph.outputs, usize::MAX)?.swap_remove(0)
        };
        let x = calibration.values(after, &after.outputs, usize::MAX)?.swap_remove(0);
        Ok(std::mem::replace(&mut self.x, x).swap_remove(0))
    }
}

/// The output of a block on the one sequence there is.
pub(super) fn only(calibration: &Calibration, graph: &Graph) -> Result<Tensor, RunError> {
    calibration
        .values(graph, &graph.outputs, 1)?
        .pop()
        .and_then(|mut sequences| sequences.pop())
        .ok_or_else(|| RunError("there is no sequence".into()))
}
