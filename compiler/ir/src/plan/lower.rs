//! Graph to plan: places for values, launches in schedule order, scratch shared by values that are never live together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use super::verify::verify_plan;
use super::{Buffer, BufferId, Kernel, Launch, Place, Plan, Signature, Storage, parts};
use crate::expression::{constant_values, leaf_name};
use crate::fused;
use crate::plan::storage::BLOCK;
use crate::{DType, Dim, Graph, Op, Per, Type, ValueId};

/// A plan and where its weights come from.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The launches.
    pub plan: Plan,
    /// The graph value behind each [`Place::Weight`]: a constant, or an expression over constants.
    pub weights: BTreeMap<Arc<str>, ValueId>,
}

/// A value that no plan can hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot lower `{op}`: {reason}")]
pub struct LowerError {
    /// The mnemonic.
    pub op: &'static str,
    /// What is wrong, and what would help.
    pub reason: String,
}

/// Alignment of every part of an arena buffer, in bytes per token.
pub const ARENA_ALIGN: usize = 64;

/// Lowers a verified graph for CPUs. Fused operations are launched as the operations they stand for; expressions over
/// constants become weights, and what reaches no output is left out.
pub fn lower(graph: &Graph) -> Result<Lowered, LowerError> {
    let expanded = fused::expand(graph).map_err(|e| LowerError { op: "fused", reason: e.to_string() })?;
    lower_as(&expanded, Storage::Blocked32)
}

/// Lowers a verified graph for GPUs: as [`lower`], but fused operations are launched as they are, codes are stored plain
/// or as records. What is sliced stays where it is as long as its slices are read, so that kernels may read it instead, and
/// what queries, keys and values are made of until their attention, so that one kernel may make all three.
pub fn lower_fused(graph: &Graph) -> Result<Lowered, LowerError> {
    lower_as(graph, Storage::Plain)
}

fn lower_as(graph: &Graph, codes: Storage) -> Result<Lowered, LowerError> {
    let live = live_schedule(graph);
    let mut last_use = last_uses(graph, &live);
    if codes == Storage::Plain {
        extend_to_attention(graph, &live, &mut last_use);
        extend_over_slices(graph, &live, &mut last_use);
    }
    let mut lowering = Lowering {
        graph,
        codes,
        last_use,
        plan: Plan { name: graph.name.clone(), buffers: vec![], launches: vec![], arena_bytes_per_token: 0 },
        weights: BTreeMap::new(),
        buffer_of: BTreeMap::new(),
        free_at: vec![],
        symbols: vec![],
        constant: constant_values(graph),
    };
    for (at, value) in live.iter().enumerate() {
        lowering
            .value(at, *value)
            .map_err(|reason| LowerError { op: graph.op(*value).mnemonic(), reason })?;
    }
    // A valid graph may still want what plans do not have, such as an input with a fixed number of rows.
    verify_plan(&lowering.plan).map_err(|e| LowerError { op: "graph", reason: e.to_string() })?;
    Ok(Lowered { plan: lowering.plan, weights: lowering.weights })
}

/// The values that outputs need, and the inputs, in schedule order.
fn live_schedule(graph: &Graph) -> Vec<ValueId> {
    let mut needed: Vec<ValueId> = graph.outputs.clone();
    let mut seen: BTreeSet<ValueId> = needed.iter().copied().collect();
    while let Some(value) = needed.pop() {
        needed.extend(graph.operands(value).into_iter().filter(|v| seen.insert(*v)));
    }
    graph.schedule().into_iter().filter(|v| seen.contains(v) || graph.inputs().contains(v)).collect()
}

fn last_uses(graph: &Graph, live: &[ValueId]) -> BTreeMap<ValueId, usize> {
    let uses = live
        .iter()
        .enumerate()
        .flat_map(|(at, user)| graph.operands(*user).into_iter().map(move |v| (v, at)));
    uses.collect()
}

/// What queries, keys and values of an attention are made of is needed until that runs: one kernel makes all three.
fn extend_to_attention(graph: &Graph, live: &[ValueId], last_use: &mut BTreeMap<ValueId, usize>) {
    for (at, value) in live.iter().enumerate().filter(|(_, v)| matches!(graph.op(**v), Op::Attention { .. }))
    {
        for operand in graph.operands(*value).into_iter().flat_map(|made| graph.operands(made)) {
            let until = last_use.entry(operand).or_insert(at);
            *until = at.max(*until);
        }
    }
}

/// What is sliced is needed as long as its slices are.
fn extend_over_slices(graph: &Graph, live: &[ValueId], last_use: &mut BTreeMap<ValueId, usize>) {
    for slice in live.iter().rev().filter(|v| matches!(graph.op(**v), Op::Slice { .. })) {
        let until = last_use.get(slice).copied().unwrap_or(0);
        let whole = last_use.entry(graph.operands(*slice)[0]).or_insert(until);
        *whole = until.max(*whole);
    }
}

struct Lowering<'a> {
    graph: &'a Graph,
    /// How codes are stored that are no weights of tensor-core products.
    codes: Storage,
    last_use: BTreeMap<ValueId, usize>,
    plan: Plan,
    weights: BTreeMap<Arc<str>, ValueId>,
    buffer_of: BTreeMap<ValueId, BufferId>,
    /// Arena intervals in use: offset, size, and the schedule position of the last use.
    free_at: Vec<(usize, usize, usize)>,
    symbols: Vec<(Signature, Arc<str>)>,
    constant: BTreeSet<ValueId>,
}

impl Lowering<'_> {
    fn value(&mut self, at: usize, value: ValueId) -> Result<(), String> {
        let op = self.graph.op(value);
        match op {
            Op::Input { name } => self.buffer(value, Place::Input(name.clone())).map(drop),
            Op::Cache { .. } => Ok(()),
            _ if self.constant.contains(&value) => Ok(()),
            _ => self.launch(at, value, op),
        }
    }

    fn launch(&mut self, at: usize, value: ValueId, op: &Op) -> Result<(), String> {
        let kernel =
            Kernel::from_op(op).ok_or("only constants go through it: nothing computes it at run time")?;
        let operands = self.graph.operands(value);
        let computed = if kernel.appends() { &operands[1..] } else { &operands[..] };
        if self.codes == Storage::Blocked32 {
            check_storage(op, &operands.iter().map(|v| self.graph.ty(*v)).collect::<Vec<_>>())?;
        }
        let inputs = computed.iter().map(|v| self.operand(*v)).collect::<Result<Vec<_>, _>>()?;
        let place = self.place(at, value, op, &operands)?;
        let output = self.buffer(value, place)?;
        let mut launch = Launch { kernel, symbol: "".into(), inputs, output };
        launch.symbol = self.symbol(&launch, op.mnemonic());
        self.plan.launches.push(launch);
        Ok(())
    }

    fn operand(&mut self, value: ValueId) -> Result<BufferId, String> {
        if let Some(buffer) = self.buffer_of.get(&value) {
            return Ok(*buffer);
        }
        if !self.constant.contains(&value) {
            return Err(format!("reads a `{}` directly", self.graph.op(value).mnemonic()));
        }
        let name = self.weight_name(value);
        self.weights.insert(name.clone(), value);
        self.buffer(value, Place::Weight(name))
    }

    /// The constant's name; for an expression the name of its first constant, numbered when that is taken.
    fn weight_name(&self, value: ValueId) -> Arc<str> {
        let base = leaf_name(self.graph, value);
        let numbered = (2..).map(|n| format!("{base}.{n}").into());
        let mut candidates = std::iter::once(base.clone()).chain(numbered);
        candidates.find(|name| !self.weights.contains_key(name)).unwrap_or(base)
    }

    fn place(&mut self, at: usize, value: ValueId, op: &Op, operands: &[ValueId]) -> Result<Place, String> {
        if let Some(index) = self.graph.outputs.iter().position(|v| *v == value) {
            let name = output_name(index).into();
            return if op.appends() {
                Err("a cache cannot be an output".into())
            } else {
                Ok(Place::Output(name))
            };
        }
        if let (true, Some(Op::Cache { name })) = (op.appends(), operands.first().map(|v| self.graph.op(*v)))
        {
            return Ok(Place::Cache(name.clone()));
        }
        let ty = self.graph.ty(value);
        let per_token = matches!(&ty.shape.rows(), Dim::Sym(s) if matches!(&**s, "T" | "L"));
        if !per_token || ty.shape.0.len() != 2 {
            return Err(format!("scratch of type {ty} does not have T or L rows"));
        }
        Ok(Place::Arena { offset: self.reserve(at, value, ty)? })
    }

    /// The lowest offset at which no value is live that this one would overlap.
    fn reserve(&mut self, at: usize, value: ValueId, ty: &Type) -> Result<usize, String> {
        let storage = Storage::of(ty, &Place::Arena { offset: 0 }, self.codes);
        let size = arena_bytes(ty, storage).ok_or_else(|| format!("rows of {ty} have no fixed size"))?;
        let until = self.last_use.get(&value).copied().unwrap_or(at);
        self.free_at.retain(|(_, _, last)| *last >= at);
        self.free_at.sort_unstable();
        let mut offset = 0;
        for (start, length, _) in &self.free_at {
            if offset + size <= *start {
                break;
            }
            offset = offset.max(start + length);
        }
        self.free_at.push((offset, size, until));
        self.plan.arena_bytes_per_token = self.plan.arena_bytes_per_token.max(offset + size);
        Ok(offset)
    }

    fn buffer(&mut self, value: ValueId, place: Place) -> Result<BufferId, String> {
        let ty = self.graph.ty(value).clone();
        if ty.shape.cols().fixed().is_none() && ty.shape.0.len() == 2 {
            return Err(format!("rows of {ty} have no fixed size"));
        }
        let storage = Storage::of(&ty, &place, self.codes);
        self.plan.buffers.push(Buffer { ty, place, storage });
        self.buffer_of.insert(value, self.plan.buffers.len() - 1);
        Ok(self.plan.buffers.len() - 1)
    }

    fn symbol(&mut self, launch: &Launch, mnemonic: &str) -> Arc<str> {
        let signature = self.plan.signature(launch);
        if let Some((_, symbol)) = self.symbols.iter().find(|(s, _)| *s == signature) {
            return symbol.clone();
        }
        let same = self.symbols.iter().filter(|((kernel, _), _)| kernel.mnemonic() == mnemonic).count();
        let symbol: Arc<str> = format!("{mnemonic}_{same}").into();
        self.symbols.push((signature, symbol.clone()));
        symbol
    }
}

/// The name of the n-th output of a graph in its plan.
pub fn output_name(index: usize) -> String {
    if index == 0 { "logits".into() } else { format!("output.{index}") }
}

/// Bytes per token of an arena buffer: each part rounded up to [`ARENA_ALIGN`]. `None` when rows have no fixed size.
pub fn arena_bytes(ty: &Type, storage: Storage) -> Option<usize> {
    let sizes = parts(ty, storage)?;
    sizes.iter().try_fold(0usize, |sum, part| {
        sum.checked_add(part.row_bytes().checked_next_multiple_of(ARENA_ALIGN)?)
    })
}

/// Blocks of codes of both operands must line up along the channels they share; E4M3 weights have no blocks.
fn check_storage(op: &Op, types: &[&Type]) -> Result<(), String> {
    let (Op::Linear, [x, weight]) = (op, types) else { return Ok(()) };
    let Some(inner) = weight.scheme.0.first() else { return Ok(()) };
    let k = weight.shape.cols().fixed().ok_or("weight has no fixed size")?;
    if weight.dtype != DType::I4 {
        let one_scale = weight.scheme.0.len() == 1 && inner.count(k) == 1;
        let reason = || format!("weights are floats, i4, or e4m3 with one scale per row, found {weight}");
        return one_scale.then_some(()).ok_or_else(reason);
    }
    if matches!(inner.per, Per::Group(n) if n % BLOCK != 0 && n < k) {
        return Err(format!("groups of {weight} are not a multiple of {BLOCK} channels"));
    }
    if x.scheme.is_plain() && !k.is_multiple_of(BLOCK) {
        return Err(format!("{k} channels are not a multiple of {BLOCK}; quantize the activation too"));
    }
    Ok(())
}
