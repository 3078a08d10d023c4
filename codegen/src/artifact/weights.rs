//! `weights.safetensors`, written tensor by tensor: a few of the largest are in memory at a time, whatever the size of
//! the model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fireq_ir::artifact::{SCHEMA, part_name, safetensors_type};
use fireq_ir::interp::InterpError;
use fireq_ir::plan::{Buffer, PackedPart, Part, Place, Storage, pack, parts};
use fireq_ir::{Graph, Op, ValueId};
use serde_json::json;

use super::{ArtifactError, Build, Stored, at};

/// Weights in memory at once: what bounds memory, whatever the number of threads.
const AT_ONCE: usize = 4;
/// Alignment of the data, and of every tensor whose size and whose predecessors' sizes allow it.
const ALIGN: usize = 64;

/// A weight of the plan and where its parts go.
struct Weight<'a> {
    buffer: &'a Buffer,
    value: ValueId,
    /// Offset of each part behind the header, in the order of [`parts`].
    offsets: Vec<u64>,
}

/// One part of one weight.
struct Entry {
    weight: usize,
    index: usize,
    name: String,
    part: Part,
    shape: Vec<usize>,
    dtype: &'static str,
    bytes: usize,
}

pub(super) fn write(
    build: &Build<'_>,
    stored: &Stored<'_>,
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), ArtifactError> {
    let mut weights = collect(stored);
    if build.weightless {
        weights.retain(|weight| has_data(stored.graph, weight.value));
    }
    let (header, total) = lay_out(&mut weights, build);
    let file = File::create(path).map_err(at(path))?;
    file.write_all_at(&header, 0).map_err(at(path))?;
    let start = header.len() as u64;
    file.set_len(start + total).map_err(at(path))?;
    let done = AtomicU64::new(0);
    for_each(&weights, build.threads, |weight| {
        for ((_, bytes), offset) in packed(stored.graph, weight)?.iter().zip(&weight.offsets) {
            file.write_all_at(bytes, start + offset).map_err(at(path))?;
            progress(done.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64, total);
        }
        release(stored.graph, weight.value);
        Ok(())
    })?;
    file.sync_all()
        .or_else(|e| if e.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(e) })
        .map_err(at(path))
}

fn collect<'a>(stored: &Stored<'a>) -> Vec<Weight<'a>> {
    let weight = |buffer: &'a Buffer| match &buffer.place {
        Place::Weight(name) => {
            let parts = parts(&buffer.ty, buffer.storage).map_or(0, |list| list.len());
            Some(Weight { buffer, value: *stored.lowered.weights.get(name)?, offsets: vec![0; parts] })
        }
        _ => None,
    };
    stored.lowered.plan.buffers.iter().filter_map(weight).collect()
}

/// Sets the offsets of all parts and returns the header with the size of what follows it. Tensors of whole cache lines
/// come first, then those of ever smaller elements, so that every element is aligned to its own size.
fn lay_out(weights: &mut [Weight<'_>], build: &Build<'_>) -> (Vec<u8>, u64) {
    let mut entries: Vec<Entry> = weights.iter().enumerate().flat_map(|(n, w)| entries(n, w)).collect();
    let class = |e: &Entry| if e.bytes.is_multiple_of(ALIGN) { 0 } else { 64 / e.part.dtype.bits().max(8) };
    entries.sort_by(|a, b| (class(a), &a.name).cmp(&(class(b), &b.name)));
    let mut header = BTreeMap::from([("__metadata__".to_string(), json!(metadata(weights, build.recipe)))]);
    let mut offset = 0;
    for entry in &entries {
        let end = offset + entry.bytes as u64;
        let value = json!({"data_offsets": [offset, end], "dtype": entry.dtype, "shape": entry.shape});
        header.insert(entry.name.clone(), value);
        weights[entry.weight].offsets[entry.index] = offset;
        offset = end;
    }
    let mut json = serde_json::to_vec(&header).expect("strings and numbers have a JSON form");
    json.resize((json.len() + 8).next_multiple_of(ALIGN) - 8, b' ');
    let length = json.len() as u64;
    ([&length.to_le_bytes()[..], &json].concat(), offset)
}

/// Which layout the file has, and for each weight of codes the type that its parts stand for.
fn metadata(weights: &[Weight<'_>], recipe: &str) -> BTreeMap<String, String> {
    let mut metadata: BTreeMap<String, String> = [
        ("format", "fireq"),
        ("version", &SCHEMA.to_string()),
        ("recipe", recipe),
        ("blocked32", BLOCKED_NOTE),
        ("plain", PLAIN_NOTE),
        ("records", RECORDS_NOTE),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .into();
    for Weight { buffer, .. } in weights {
        let Place::Weight(name) = &buffer.place else { continue };
        if buffer.ty.dtype.is_code() {
            let order = if buffer.storage == Storage::Plain { "plain" } else { buffer.storage.name() };
            metadata.insert(format!("layout.{name}"), format!("{order} {}", buffer.ty));
        }
    }
    metadata
}

const BLOCKED_NOTE: &str = "blocks of 32 i4 codes in 16 bytes: byte j has code j in its low and code j+16 in its high \
     nibble; the group of every scale is padded with zeros to whole blocks; value = outer * e4m3(code * scale) under \
     e4m3 scales";

const PLAIN_NOTE: &str = "i4 codes two to a byte, low nibble first, row after row; value = outer * e4m3(code * scale) \
     under e4m3 scales; e4m3 codes a byte each, value = code * scale";

const RECORDS_NOTE: &str = "per 64 rows and 128 columns 4096 bytes of i4 codes in the order of wgmma's operand A, then e4m3 \
     scales of each row and group; 16 bytes for half h of the columns, warp w, lane 4g+t: words of rows 16w+g, 16w+g+8, \
     again for the next 32 columns, each with columns 4t..4t+4 and 16+4t..16+4t+4, low nibble first; scales of rows g and \
     g+8 are neighbours; value = outer * e4m3(code * scale)";

fn entries(weight: usize, w: &Weight<'_>) -> Vec<Entry> {
    let Place::Weight(name) = &w.buffer.place else { return vec![] };
    let rows = w.buffer.ty.shape.rows().fixed().unwrap_or(0);
    let vector = w.buffer.ty.shape.0.len() == 1;
    let list = parts(&w.buffer.ty, w.buffer.storage).unwrap_or_default();
    let entry = |(index, part): (usize, Part)| {
        let (dtype, shape) = safetensors_type(&part, rows, vector);
        Entry {
            weight,
            index,
            name: part_name(name, &part),
            shape,
            dtype,
            bytes: part.stored(rows).map_or(0, |(_, bytes)| bytes),
            part,
        }
    };
    list.into_iter().enumerate().map(entry).collect()
}

/// Runs `work` on every weight, on `threads` threads at most. Of several errors that of the first weight is reported.
fn for_each<'a>(
    weights: &'a [Weight<'a>],
    threads: usize,
    work: impl Fn(&'a Weight<'a>) -> Result<(), ArtifactError> + Sync,
) -> Result<(), ArtifactError> {
    let next = AtomicUsize::new(0);
    let first_error: Mutex<Option<(usize, ArtifactError)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(weights.len()).clamp(1, AT_ONCE) {
            scope.spawn(|| {
                while let Some(weight) = weights.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Err(error) = work(weight) else { continue };
                    next.store(weights.len(), Ordering::Relaxed);
                    let index = weights.iter().position(|w| std::ptr::eq(w, weight)).unwrap_or(0);
                    let mut first = first_error.lock().expect("no thread panics while it holds the lock");
                    if first.as_ref().is_none_or(|(n, _)| index < *n) {
                        *first = Some((index, error));
                    }
                }
            });
        }
    });
    first_error.into_inner().expect("no thread panicked").map_or(Ok(()), |(_, error)| Err(error))
}

fn packed<'a>(graph: &'a Graph, weight: &Weight<'_>) -> Result<Vec<PackedPart<'a>>, ArtifactError> {
    for leaf in leaves(graph, weight.value) {
        let Op::Const { name } = graph.op(leaf) else { continue };
        let bad = graph.constants.get(name).and_then(|data| data.first_non_finite(graph.ty(leaf).dtype));
        if let Some(element) = bad {
            return Err(ArtifactError::NonFinite { tensor: name.to_string(), element });
        }
    }
    let parts = pack(graph, weight.value, weight.buffer.storage)?;
    let rows = weight.buffer.ty.shape.rows().fixed().unwrap_or(0);
    match parts.iter().find(|(part, bytes)| Some(bytes.len()) != part.stored(rows).map(|(_, bytes)| bytes)) {
        None => Ok(parts),
        Some((_, bytes)) => {
            let reason = format!("{} bytes of data are not {}", bytes.len(), weight.buffer.ty);
            Err(InterpError::Op { op: "const", reason }.into())
        }
    }
}

fn has_data(graph: &Graph, value: ValueId) -> bool {
    leaves(graph, value).into_iter().all(|leaf| match graph.op(leaf) {
        Op::Const { name } => graph.constants.get(name).is_some_and(|data| data.bytes().is_some()),
        _ => true,
    })
}

fn release(graph: &Graph, value: ValueId) {
    for leaf in leaves(graph, value) {
        if let Op::Const { name } = graph.op(leaf)
            && let Some(data) = graph.constants.get(name)
        {
            data.release();
        }
    }
}

/// The constants that an expression is made of.
fn leaves(graph: &Graph, value: ValueId) -> Vec<ValueId> {
    let operands = graph.operands(value);
    if operands.is_empty() {
        vec![value]
    } else {
        operands.into_iter().flat_map(|v| leaves(graph, v)).collect()
    }
}
