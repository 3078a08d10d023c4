//! How long weights take: some rows of the largest of each kind are read, quantized, packed and hashed as they will be.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fireq_ir::expression::is_constant;
use fireq_ir::plan::{Buffer, Place, pack_rows, pieces};
use fireq_ir::{ConstData, Graph, Op, ValueId};

use super::Compilation;

/// What was measured.
#[derive(Default)]
pub(super) struct Measured {
    /// Seconds of all threads, added up.
    pub thread_seconds: f64,
    pub basis: String,
    /// What could not be measured.
    pub without: Vec<String>,
}

/// A weight to be made.
pub(super) struct Weight<'a> {
    pub graph: &'a Graph,
    pub buffer: &'a Buffer,
    pub value: ValueId,
}

impl Weight<'_> {
    fn elements(&self) -> u64 {
        self.buffer.ty.shape.elements().unwrap_or(0) as u64
    }

    /// What weights that take equally long for an element have in common: types, order, and operations that they come from.
    fn kind(&self) -> String {
        format!(
            "{} {} {}",
            self.buffer.ty.format(),
            self.buffer.storage.name(),
            origin(self.graph, self.value)
        )
    }
}

fn origin(graph: &Graph, value: ValueId) -> String {
    let operands = graph.operands(value);
    let inner: Vec<String> = operands.iter().map(|operand| origin(graph, *operand)).collect();
    match graph.op(value) {
        Op::Const { .. } => graph.ty(value).format().to_string(),
        Op::Quantize { fit, .. } => format!("{}({})", fit.name(), inner.join(",")),
        op => format!("{}({})", op.mnemonic(), inner.join(",")),
    }
}

/// How long each kind is looked at.
const EACH: Duration = Duration::from_millis(100);

pub(super) fn measure(of: &Compilation<'_>) -> Measured {
    let mut kinds: BTreeMap<String, Vec<Weight<'_>>> = BTreeMap::new();
    for weight in all(of).filter(|weight| is_constant(weight.graph, weight.value)) {
        kinds.entry(weight.kind()).or_default().push(weight);
    }
    let mut measured = Measured::default();
    let (mut packed, mut looked_at) = (0, 0);
    for (kind, weights) in kinds {
        let elements: u64 = weights.iter().map(Weight::elements).sum();
        let largest = weights.iter().max_by_key(|weight| weight.elements()).expect("a kind has a weight");
        match rate(largest, of) {
            Some((rate, seen)) => {
                measured.thread_seconds += elements as f64 / rate;
                packed += elements;
                looked_at += seen;
            }
            None => measured
                .without
                .push(format!("{} weights of kind {kind}, which come from data", weights.len())),
        }
    }
    let whose = if of.model.weightless { "random ones" } else { "the checkpoint's" };
    measured.basis = format!(
        "{} numbers, as quickly as {} of {whose} were packed and hashed in this run, on {} threads at once",
        millions(packed),
        millions(looked_at),
        of.build.threads.max(1)
    );
    measured
}

fn millions(n: u64) -> String {
    format!("{:.1} million", n as f64 / 1e6)
}

/// Those of every plan.
pub(super) fn all<'a>(of: &Compilation<'a>) -> impl Iterator<Item = Weight<'a>> {
    let cpu = of.plans.cpu.iter().map(|lowered| (&of.model.graph, lowered));
    let cuda = of.plans.cuda.iter().map(|(graph, lowered)| (graph, lowered));
    cpu.chain(cuda).flat_map(|(graph, lowered)| {
        lowered.plan.buffers.iter().filter_map(move |buffer| {
            let Place::Weight(name) = &buffer.place else { return None };
            Some(Weight { graph, buffer, value: *lowered.weights.get(name)? })
        })
    })
}

/// Numbers that a thread packs in a second while the others do, too, and how many were packed to know it.
fn rate(weight: &Weight<'_>, of: &Compilation<'_>) -> Option<(f64, u64)> {
    let pieces = pieces(weight.graph, weight.value, weight.buffer.storage);
    together((weight.graph, weight.value), weight.buffer, &pieces, of.build.threads.max(1))
}

/// Packs pieces on all threads until time is up, again from the first where there are few.
fn together(
    (graph, value): (&Graph, ValueId),
    buffer: &Buffer,
    pieces: &[Range<usize>],
    threads: usize,
) -> Option<(f64, u64)> {
    let cols = buffer.ty.shape.cols().fixed().unwrap_or(1) as u64;
    let next = AtomicUsize::new(0);
    let work = || {
        let (began, mut elements) = (Instant::now(), 0);
        while elements == 0 || began.elapsed() < EACH {
            let rows = &pieces[next.fetch_add(1, Ordering::Relaxed) % pieces.len()];
            for (_, bytes) in pack_rows(graph, value, buffer.storage, rows.clone()).ok()? {
                std::hint::black_box(blake3::hash(&bytes));
            }
            std::hint::black_box(hashed(graph, value, rows));
            elements += rows.len() as u64 * cols;
        }
        Some((elements as f64 / began.elapsed().as_secs_f64(), elements))
    };
    let threads = if pieces.len() == 1 { 1 } else { threads };
    let found: Option<Vec<(f64, u64)>> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        started.into_iter().map(|thread| thread.join().ok()?).collect()
    });
    let found = found?;
    let rates: f64 = found.iter().map(|(rate, _)| rate).sum();
    Some((rates / found.len() as f64, found.iter().map(|(_, elements)| elements).sum()))
}

/// The text of a graph has the hashes of its constants, which are taken as they are read.
fn hashed(graph: &Graph, value: ValueId, rows: &Range<usize>) -> Option<blake3::Hash> {
    let operands = graph.operands(value);
    if let Some(first) = operands.first() {
        return hashed(graph, *first, rows);
    }
    let Op::Const { name } = graph.op(value) else { return None };
    let data = graph.constants.get(name)?;
    if let ConstData::Decoded { source, .. } = data {
        return Some(blake3::hash(&source.decode(rows.clone())));
    }
    let bytes = data.bytes()?;
    let row = bytes.len() / graph.ty(value).shape.rows().fixed()?.max(1);
    Some(blake3::hash(bytes.get(rows.start * row..rows.end * row)?))
}
