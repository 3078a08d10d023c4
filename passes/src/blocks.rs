//! `blocks(a,b,…)`: passes on one block after another, each on what the blocks before it now give.
//!
//! A block is what lies between two sums of the residual stream: attention with its norm, or the MLP with its. It is taken
//! out of the graph as a graph of its own, whose input `x` is the stream; passes run on it with calibration data that went
//! through every block before it as these are by then, quantized or not. So errors that earlier blocks make are known to
//! later ones, and nothing is measured on a graph that is half changed. Fires for blocks with linears of plain weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fireq_ir::expression::{constant_values, leaf_name};
use fireq_ir::interp::Tensor;
use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, Pipeline, Ref, RunOptions, Unobserved, ValueId};

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
        let blocks: Vec<Block> = split(graph).into_iter().map(|cut| Block::take(graph, cut)).collect();
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
    calibration.observe(graph, taps, usize::MAX, |_, tap, tensor| found[tap].push(tensor.clone()))?;
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

/// The values between which blocks lie, each with the next: sums and gathers that are all that is live of what depends on
/// the graph's first input.
fn split(graph: &Graph) -> Vec<(ValueId, ValueId)> {
    let stream = stream_values(graph);
    let mut uses: BTreeMap<ValueId, usize> = BTreeMap::new();
    for value in &stream {
        graph.operands(*value).into_iter().for_each(|v| *uses.entry(v).or_default() += 1);
    }
    let (members, mut live, mut cuts): (BTreeSet<ValueId>, _, _) =
        (stream.iter().copied().collect(), BTreeSet::new(), vec![]);
    for value in stream {
        for operand in graph.operands(value) {
            let left = uses.entry(operand).or_insert(1);
            *left -= 1;
            if *left == 0 {
                live.remove(&operand);
            }
        }
        if uses.contains_key(&value) && members.contains(&value) {
            live.insert(value);
        }
        if matches!(graph.op(value), Op::Add | Op::LinearAdd | Op::Gather) && live.iter().eq([&value]) {
            cuts.push(value);
        }
    }
    cuts.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// The values that depend on the first input, in schedule order.
fn stream_values(graph: &Graph) -> Vec<ValueId> {
    let mut found: BTreeSet<ValueId> = graph.inputs().first().copied().into_iter().collect();
    let mut order = vec![];
    for value in graph.schedule() {
        if graph.operands(value).iter().any(|v| found.contains(v)) {
            found.insert(value);
            order.push(value);
        }
    }
    order
}

/// A piece of a graph as a graph of its own.
struct Block {
    name: String,
    graph: Graph,
    /// Where the stream comes from, and what the block makes of it.
    start: ValueId,
    end: ValueId,
    /// What each input stands for.
    inputs: BTreeMap<String, ValueId>,
}

impl Block {
    /// What lies between two values.
    fn take(whole: &Graph, (start, end): (ValueId, ValueId)) -> Self {
        let inside = between(whole, start, end);
        let mut block = Block {
            name: String::new(),
            graph: Graph::new(&whole.name),
            start,
            end,
            inputs: BTreeMap::new(),
        };
        let mut copies = BTreeMap::from([(start, block.input(whole, start, "x"))]);
        for value in whole.schedule() {
            if inside.contains(&value) {
                let operands: Vec<ValueId> = whole.operands(value).iter().map(|v| copies[v]).collect();
                copies.insert(
                    value,
                    block.graph.push(whole.op(value).clone(), whole.ty(value).clone(), &operands),
                );
            } else if value != start && reads(whole, value, &inside) {
                let copy = match whole.op(value) {
                    Op::Const { name } => {
                        let data = whole.constants.get(name).cloned();
                        block.graph.constants.extend(data.map(|data| (name.clone(), data)));
                        block.graph.push(whole.op(value).clone(), whole.ty(value).clone(), &[])
                    }
                    Op::Input { name } => block.input(whole, value, name),
                    _ => block.input(whole, value, &format!("beside.{}", block.inputs.len())),
                };
                copies.insert(value, copy);
            }
        }
        block.graph.outputs.push(copies[&end]);
        let weight = |v: &ValueId| *whole.op(*v) == Op::Linear && inside.contains(v);
        let linear = whole.schedule().into_iter().find(weight);
        block.name =
            linear.map_or_else(|| "block".into(), |v| leaf_name(whole, whole.operands(v)[1]).to_string());
        block
    }

    fn input(&mut self, whole: &Graph, value: ValueId, name: &str) -> ValueId {
        self.inputs.insert(name.into(), value);
        self.graph.input(name, whole.ty(value).clone())
    }

    /// The patch that puts `after` where the block was taken from.
    fn give_back(&self, whole: &Graph, after: &Graph) -> Result<Patch, PassError> {
        let mut patch = Patch::new(self.name.clone());
        let constants = constants_by_name(whole);
        let mut copies: BTreeMap<ValueId, Ref> = BTreeMap::new();
        for value in after.schedule() {
            let operands: Vec<Ref> = after.operands(value).iter().map(|v| copies[v]).collect();
            let ty = after.ty(value).clone();
            let copy = match after.op(value) {
                Op::Input { name } => self.inputs[&**name].into(),
                Op::Const { name } => match (constants.get(&**name), after.constants.get(name)) {
                    (Some(value), _) => (*value).into(),
                    (None, Some(data)) => patch.constant(name, ty, data.clone()),
                    (None, None) => continue,
                },
                Op::Cache { name } => patch.cache(name.clone(), ty),
                op => patch.add(whole, op.clone(), &operands)?,
            };
            copies.insert(value, copy);
        }
        patch.replace(self.end, copies[&after.outputs[0]]);
        Ok(patch)
    }
}

fn constants_by_name(graph: &Graph) -> BTreeMap<&str, ValueId> {
    let constant = |value| match graph.op(value) {
        Op::Const { name } => Some((&**name, value)),
        _ => None,
    };
    graph.schedule().into_iter().filter_map(constant).collect()
}

/// What `end` is computed from, back to `start`, to what depends on neither, and to constants; expressions over constants
/// that are used here are part of it.
fn between(graph: &Graph, start: ValueId, end: ValueId) -> BTreeSet<ValueId> {
    let stream: BTreeSet<ValueId> = stream_values(graph).into_iter().collect();
    let constants = constant_values(graph);
    let (mut inside, mut stack) = (BTreeSet::new(), vec![end]);
    while let Some(value) = stack.pop() {
        let source = matches!(graph.op(value), Op::Const { .. } | Op::Input { .. });
        let cache = matches!(graph.op(value), Op::Cache { .. });
        let part = cache || stream.contains(&value) || constants.contains(&value);
        if value != start && part && !source && inside.insert(value) {
            stack.extend(graph.operands(value));
        }
    }
    inside
}

fn reads(graph: &Graph, value: ValueId, inside: &BTreeSet<ValueId>) -> bool {
    graph.users(value).iter().any(|user| inside.contains(user))
}
