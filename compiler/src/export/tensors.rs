//! The tensors of a checkpoint: what they are, and their bytes, some rows at a time on every thread.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fireq_ir::interp::{Data, Tensor};
use fireq_ir::{DType, Graph, ValueId};
use rayon::prelude::*;

use super::align::Aligned;
use super::pack::{Difference, pack};
use super::scheme::{Scheme, Schemes, module};
use super::shards::{Entry, Shards};
use super::{ExportError, ExportOptions, Quantized, dense};

/// Pieces after which what was mapped for them is given back: few enough to be small beside a tensor, and worth the call.
const STEP: usize = 8;

/// What was written.
#[derive(Clone, Copy)]
pub(super) struct Written {
    /// Bytes of tensors.
    pub bytes: u64,
    /// How far weights are that fireq's kernels decode.
    pub codes: Difference,
    /// How far all others are.
    pub numbers: Difference,
}

/// A value, and the entries that it becomes: one, or codes, scales and shape.
struct Job<'a> {
    name: &'a str,
    value: ValueId,
    scheme: Option<Scheme>,
    first: usize,
}

/// Writes all tensors to files in `dir`.
pub(super) fn write(
    quantized: &Quantized,
    aligned: &Aligned,
    schemes: Option<&Schemes>,
    options: ExportOptions,
    dir: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Written, ExportError> {
    let (mut entries, mut jobs) = (vec![], vec![]);
    for (name, value) in &aligned.tensors {
        let scheme = schemes.and_then(|schemes| schemes.packed.get(name)).copied();
        jobs.push(Job { name, value: *value, scheme, first: entries.len() });
        entries.extend(entries_of(name, &quantized.graph, *value, scheme, options.dtype));
    }
    let bytes = entries.iter().map(Entry::bytes).sum();
    let shards = Shards::create(dir, &entries, options.shard)?;
    let (done, whole) = (AtomicU64::new(0), Mutex::new(()));
    let wrote = |n: u64| progress(done.fetch_add(n, Ordering::Relaxed) + n, bytes);
    let writer =
        Writer { quantized, dtype: options.dtype, entries: &entries, shards: &shards, wrote: &wrote };
    let sums: Vec<(bool, Difference)> =
        jobs.par_iter().map(|job| writer.job(job, &whole)).collect::<Result<_, _>>()?;
    shards.sync()?;
    let mut written = Written { bytes, codes: Difference::default(), numbers: Difference::default() };
    for (codes, sum) in sums {
        *(if codes { &mut written.codes } else { &mut written.numbers }) += sum;
    }
    Ok(written)
}

/// The entries of a weight.
fn entries_of(name: &str, graph: &Graph, value: ValueId, scheme: Option<Scheme>, dtype: DType) -> Vec<Entry> {
    let shape: Vec<usize> = graph.ty(value).shape.0.iter().filter_map(fireq_ir::Dim::fixed).collect();
    let float = if dtype == DType::BF16 { "BF16" } else { "F32" };
    let Some(Scheme { group, .. }) = scheme else {
        return vec![Entry { name: name.into(), dtype: float, shape }];
    };
    let (rows, cols, module) = (shape[0], shape[1], module(name));
    let entry = |part: &str, dtype, shape| Entry { name: format!("{module}.{part}"), dtype, shape };
    vec![
        entry("weight_packed", "I32", vec![rows, cols / 8]),
        entry("weight_scale", float, vec![rows, cols / group]),
        entry("weight_shape", "I64", vec![2]),
    ]
}

struct Writer<'a> {
    quantized: &'a Quantized,
    dtype: DType,
    entries: &'a [Entry],
    shards: &'a Shards,
    wrote: &'a (dyn Fn(u64) + Sync),
}

impl Writer<'_> {
    /// Writes a weight. Says whether it is one of codes, and how far it is from what fireq has.
    fn job(&self, job: &Job<'_>, whole: &Mutex<()>) -> Result<(bool, Difference), ExportError> {
        let Quantized { graph, numbers, .. } = self.quantized;
        let pieces = numbers.pieces(graph, job.value);
        // What cannot be made in pieces may be large.
        let _one = (pieces.len() == 1).then(|| whole.lock());
        let mut sum = Difference::default();
        for (n, rows) in pieces.into_iter().enumerate() {
            if n % STEP == STEP - 1 {
                numbers.release(graph, job.value);
            }
            let tensor = numbers.rows(graph, job.value, rows.clone())?;
            sum += match job.scheme {
                Some(scheme) => self.packed(job, scheme, &tensor, &rows)?,
                None => self.dense(job, &tensor, &rows)?,
            };
        }
        if job.scheme.is_some() {
            let shape = self.quantized.graph.ty(job.value).shape.0.iter().filter_map(fireq_ir::Dim::fixed);
            let shape: Vec<u8> = shape.flat_map(|n| (n as i64).to_le_bytes()).collect();
            self.put(job.first + 2, 0, &shape)?;
        }
        numbers.release(graph, job.value);
        Ok((graph.ty(job.value).dtype.is_code(), sum))
    }

    fn packed(
        &self,
        job: &Job<'_>,
        scheme: Scheme,
        tensor: &Tensor,
        rows: &Range<usize>,
    ) -> Result<Difference, ExportError> {
        let packed = pack(tensor, scheme.group, self.dtype)?;
        let Data::Quant(q) = &tensor.data else { return Ok(Difference::default()) };
        let sum = Difference::of_packed(q, &packed.scales, scheme.group, scheme.inputs);
        self.put(job.first, rows.start, &packed.codes)?;
        self.numbers(job, job.first + 1, rows.start, packed.scales)?;
        Ok(sum)
    }

    fn dense(&self, job: &Job<'_>, tensor: &Tensor, rows: &Range<usize>) -> Result<Difference, ExportError> {
        let (numbers, mut sum) = (tensor.to_f32(), Difference::default());
        for number in &numbers {
            let narrow = dense::narrowed(*number, self.dtype);
            sum.add(*number, narrow, narrow);
        }
        self.numbers(job, job.first, rows.start, numbers)?;
        Ok(sum)
    }

    /// Writes rows of an entry of floats, from `row` on.
    fn numbers(&self, job: &Job<'_>, entry: usize, row: usize, numbers: Vec<f32>) -> Result<(), ExportError> {
        if !numbers.iter().all(|number| dense::narrowed(*number, self.dtype).is_finite()) {
            return Err(ExportError::NonFinite { tensor: job.name.into() });
        }
        self.put(entry, row, &dense::bytes(numbers, self.dtype)?)
    }

    /// Writes rows of an entry, from `row` on.
    fn put(&self, entry: usize, row: usize, bytes: &[u8]) -> Result<(), ExportError> {
        let Entry { shape, .. } = &self.entries[entry];
        let rows = if shape.len() == 2 { shape[0].max(1) } else { 1 };
        self.shards.write(entry, self.entries[entry].bytes() / rows as u64 * row as u64, bytes)?;
        (self.wrote)(bytes.len() as u64);
        Ok(())
    }
}
