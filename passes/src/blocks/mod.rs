//! `blocks(a,b,…)`: passes on one block after another, each on what the blocks before it now give.
//!
//! A block is what lies between two sums of the residual stream: attention with its norm, or the MLP with its. It is taken
//! out of the graph as a graph of its own, of which the stream is an input; passes run on it with calibration data that went
//! through every block before it as these are by then, quantized or not. So errors that earlier blocks make are known to
//! later ones, and nothing is measured on a graph that is half changed. Beside it goes the stream of the unchanged model: the
//! graph before the first lossy pass, on it, is what passes may compare with ([`Calibration::reference`]). Fires for blocks with linears of plain weights.

mod measure;
mod piece;
mod split;
mod stream;

use std::sync::Arc;

use fireq_ir::{
    ConstData, Effect, Graph, Observer, Op, Pass, PassError, Patch, Pipeline, Ran, RunOptions, Stopped,
    ValueId,
};

use crate::blocks::measure::measure;
use crate::blocks::piece::{Block, take};
use crate::blocks::split::split;
use crate::blocks::stream::Stream;
use crate::calibration::{Calibration, Reference, Sequences};
use crate::journal::{Finished, Resumed};
use crate::left::Left;

/// The pass: a pipeline for each block.
pub(crate) struct Blocks {
    steps: Pipeline,
    calibration: Arc<Calibration>,
    /// Blocks in which there was nothing to do.
    left: Left,
}

impl Pass for Blocks {
    fn id(&self) -> &'static str {
        "blocks"
    }

    fn effect(&self) -> Effect {
        self.steps.passes().iter().map(|pass| pass.effect()).max().unwrap_or(Effect::Exact)
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let mut blocks = take(graph, &split(graph));
        let wanted = |block: &Block| pending(&block.graph) && !self.left.has(&block.name);
        let Some(last) = blocks.iter().rposition(wanted) else {
            self.left.end(&[]);
            return Ok(vec![]);
        };
        blocks.truncate(last + 1);
        let mut stream = Stream::at_first(&self.calibration, graph, &blocks)?;
        // A later run may ask for the given data again, or for random ones.
        let given = self.calibration.exchange(Sequences::Random);
        let walked = self.walk(&blocks, &mut stream);
        self.calibration.exchange(given);
        self.calibration.refer_to(None);
        self.calibration.end();
        let mut patches = vec![];
        for (block, finished) in blocks.iter().zip(&walked?) {
            match &finished.graph {
                Some(after) => patches.push(block.give_back(graph, after)?),
                None => self.left.add(&block.name),
            }
        }
        self.left.end(&patches);
        Ok(patches)
    }
}

impl Blocks {
    pub fn new(steps: Pipeline, calibration: Arc<Calibration>) -> Self {
        Blocks { steps, calibration, left: Left::default() }
    }

    /// Runs the passes on each block and the data through it, from where an earlier walk ended.
    fn walk(&self, blocks: &[Block], stream: &mut Stream) -> Result<Vec<Finished>, PassError> {
        // Passes run until nothing changes: the next walk over the same passes starts from another graph.
        let name = format!("{} {}", self.calibration.walk(), self.steps);
        let journal = self.calibration.journal();
        let Resumed { mut finished, streams } = journal.resume(&name);
        if !stream.resume(streams) {
            finished.clear();
        }
        finished.truncate(blocks.len());
        for (n, block) in finished.iter().enumerate() {
            self.calibration.restore(n, block.findings.clone());
        }
        let all = blocks.iter().map(|block| parameters(&block.graph)).sum();
        let mut done = blocks[..finished.len()].iter().map(|block| parameters(&block.graph)).sum();
        for (n, block) in blocks.iter().enumerate().skip(finished.len()) {
            self.calibration.begin(n, &block.name);
            let next = self.block(block, stream, (done, all))?;
            finished.push(journal.keep(&name, n, next, &stream.tensors())?);
            done += parameters(&block.graph);
        }
        journal.tell(all, all, ("", ""));
        Ok(finished)
    }

    /// Runs the passes on a block, and the stream through what it then is.
    fn block(&self, block: &Block, stream: &mut Stream, progress: (u64, u64)) -> Result<Finished, PassError> {
        self.calibration.exchange(Sequences::Given(Arc::new(stream.inputs(block, &stream.x))));
        self.calibration.refer_to(None);
        let mut after = block.graph.clone();
        let changed = pending(&after) && self.change((block, stream), &mut after, progress)?;
        let was = stream.advance(&self.calibration, block, &after)?;
        if changed {
            measure(&self.calibration, block, &after, (&was, stream))?;
        }
        after.constants.retain(|name, _| !block.graph.constants.contains_key(name));
        // Mapped weights that were read need no memory any more.
        block.graph.constants.values().for_each(ConstData::release);
        let findings = self.calibration.current();
        Ok(Finished { graph: changed.then_some(after), findings })
    }

    /// True when a pass changed something.
    fn change(
        &self,
        (block, stream): (&Block, &Stream),
        after: &mut Graph,
        progress: (u64, u64),
    ) -> Result<bool, PassError> {
        let mut teller = Teller { calibration: &self.calibration, block, stream, progress };
        let changed = self.steps.run_observed(after, RunOptions::default(), &mut teller);
        let changed = changed.map_err(|stopped| {
            let Stopped::Pass(failed) = stopped;
            let reason = format!("pass `{}`: {}", failed.pass, failed.source);
            PassError::Refused { site: block.name.clone(), reason }
        })?;
        Ok(changed > 0)
    }
}

/// Tells which pass is at work, and the first lossy one what it changes.
struct Teller<'a> {
    calibration: &'a Calibration,
    block: &'a Block,
    stream: &'a Stream,
    progress: (u64, u64),
}

impl Observer for Teller<'_> {
    type Error = std::convert::Infallible;

    fn before(&mut self, pass: &dyn Pass, graph: &Graph) -> Result<(), Self::Error> {
        if pass.effect() == Effect::Lossy && self.calibration.reference().is_none() {
            let inputs = self.stream.inputs(self.block, &self.stream.unchanged);
            self.calibration.refer_to(Some(Reference::new(graph.clone(), inputs)));
        }
        let (done, all) = self.progress;
        self.calibration.journal().tell(done, all, (pass.id(), &self.block.name));
        Ok(())
    }

    fn after(&mut self, _: &Ran<'_>) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The linears of a graph whose weights are plain, and their weights.
fn plain_linears(graph: &Graph) -> impl Iterator<Item = ValueId> {
    let weight = |v: ValueId| (*graph.op(v) == Op::Linear).then(|| graph.operands(v)[1]);
    graph.schedule().into_iter().filter_map(weight).filter(|w| graph.ty(*w).scheme.is_plain())
}

/// True for a graph with a linear whose weight is plain, and none whose weight is not: passes were here and kept the rest.
fn pending(graph: &Graph) -> bool {
    let linears = graph.schedule().into_iter().filter(|v| *graph.op(*v) == Op::Linear).count();
    linears > 0 && plain_linears(graph).count() == linears
}

/// Parameters of plain weights.
fn parameters(graph: &Graph) -> u64 {
    plain_linears(graph).filter_map(|w| graph.ty(w).shape.elements()).map(|n| n as u64).sum()
}
