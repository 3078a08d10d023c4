//! `blocks(a,b,…)`: passes on one block after another, each on what the blocks before it now give.
//!
//! A block is what lies between two sums of the residual stream: attention with its norm, or the MLP with its. It is taken
//! out of the graph as a graph of its own, of which the stream is an input; passes run on it with calibration data that went
//! through every block before it as these are by then, quantized or not. So errors that earlier blocks make are known to
//! later ones, and nothing is measured on a graph that is half changed. Fires for blocks with linears of plain weights.

mod piece;
mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fireq_ir::interp::Tensor;
use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, Pipeline, RunOptions, Unobserved, ValueId};

use crate::blocks::piece::{Block, take};
use crate::blocks::split::split;
use crate::calibration::{Calibration, RunError, Sequences};
use crate::random::Tensors;

/// The pass: a pipeline for each block.
pub(crate) struct Blocks {
    pub steps: Pipeline,
    pub calibration: Arc<Calibration>,
}

impl Pass for Blocks {
    fn id(&self) -> &'static str {
        "blocks"
    }

    fn effect(&self) -> Effect {
        self.steps.passes().iter().map(|pass| pass.effect()).max().unwrap_or(Effect::Exact)
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let blocks = take(graph, &split(graph));
        let Some(last) = blocks.iter().rposition(|block| pending(&block.graph)) else { return Ok(vec![]) };
        let mut stream = Stream::at_first(&self.calibration, graph, &blocks[..=last])?;
        // A later run may ask for the given data again, or for random ones.
        let given = self.calibration.exchange(Sequences::Random);
        let result = self.walk(graph, &blocks[..=last], &mut stream);
        self.calibration.exchange(given);
        result
    }
}

impl Blocks {
    /// Runs the passes on each block and the data through it.
    fn walk(&self, graph: &Graph, blocks: &[Block], stream: &mut Stream) -> Result<Vec<Patch>, PassError> {
        let mut patches = vec![];
        for block in blocks {
            let inputs = stream.inputs(block);
            self.calibration.exchange(Sequences::Given(Arc::new(inputs)));
            let mut after = block.graph.clone();
            if pending(&after) {
                patches.extend(self.change(graph, block, &mut after)?);
            }
            stream.x = values(&self.calibration, &after, &after.outputs)?.swap_remove(0);
        }
        Ok(patches)
    }

    fn change(&self, graph: &Graph, block: &Block, after: &mut Graph) -> Result<Option<Patch>, PassError> {
        let options = RunOptions::default();
        let changed = self.steps.run_observed(after, options, &mut Unobserved).map_err(|stopped| {
            let fireq_ir::Stopped::Pass(failed) = stopped;
            let reason = format!("pass `{}`: {}", failed.pass, failed.source);
            PassError::Refused { site: block.name.clone(), reason }
        })?;
        if changed == 0 { Ok(None) } else { block.give_back(graph, after).map(Some) }
    }
}

/// Every sequence's value of each tap.
fn values(calibration: &Calibration, graph: &Graph, taps: &[ValueId]) -> Result<Vec<Vec<Tensor>>, RunError> {
    let mut found = vec![vec![]; taps.len()];
    calibration.observe(graph, taps, usize::MAX, |tap, tensor| found[tap].push(tensor.clone()))?;
    Ok(found)
}

/// The residual stream on its way through the blocks, and what all blocks read beside it.
struct Stream {
    x: Vec<Tensor>,
    beside: BTreeMap<ValueId, Vec<Tensor>>,
}

impl Stream {
    fn at_first(calibration: &Calibration, graph: &Graph, blocks: &[Block]) -> Result<Self, PassError> {
        let beside: BTreeSet<ValueId> = blocks
            .iter()
            .flat_map(|block| block.inputs.values().copied().filter(|v| *v != block.start))
            .collect();
        let taps: Vec<ValueId> =
            blocks.first().map(|b| b.start).into_iter().chain(beside.iter().copied()).collect();
        let mut found = values(calibration, graph, &taps)?.into_iter();
        let x = found.next().unwrap_or_default();
        Ok(Stream { x, beside: beside.into_iter().zip(found).collect() })
    }

    /// The inputs of a block on each sequence.
    fn inputs(&self, block: &Block) -> Vec<Tensors> {
        let of = |n: usize, value: &ValueId| {
            if *value == block.start { self.x[n].clone() } else { self.beside[value][n].clone() }
        };
        let sequence = |n| block.inputs.iter().map(|(name, value)| (name.clone(), of(n, value))).collect();
        (0..self.x.len()).map(sequence).collect()
    }
}

/// True for a graph with a linear whose weight is plain.
fn pending(graph: &Graph) -> bool {
    let plain = |v: ValueId| {
        *graph.op(v) == Op::Linear && graph.operands(v).get(1).is_some_and(|w| graph.ty(*w).scheme.is_plain())
    };
    graph.schedule().into_iter().any(plain)
}
