//! `weights.safetensors`, written some rows at a time: besides them, the largest tensor whose rows depend on each other is in
//! memory, whatever the size of the model.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fireq_ir::interp::InterpError;
use fireq_ir::plan::{Buffer, PackedPart, Place, pack_rows, parts, pieces};
use fireq_ir::{ConstData, Graph, Op, ValueId, first_non_finite};

use super::header::lay_out;
use super::{ArtifactError, Build, Stored, at};

/// A weight of the plan and where its parts go.
pub(super) struct Weight<'a> {
    pub buffer: &'a Buffer,
    pub value: ValueId,
    /// Offset of each part behind the header, in the order of [`parts`].
    pub offsets: Vec<u64>,
}

/// A file of weights that is being written.
pub(super) struct WeightFile<'a> {
    graph: &'a Graph,
    path: PathBuf,
    file: File,
    weights: Vec<Weight<'a>>,
    /// Where the header ends.
    start: u64,
    total: u64,
}

impl<'a> WeightFile<'a> {
    /// The file of a plan in `dir`, with its header and without weights.
    pub fn create(build: &Build<'_>, stored: &Stored<'a>, dir: &Path) -> Result<Self, ArtifactError> {
        let mut weights = collect(stored);
        if build.weightless {
            weights.retain(|weight| has_data(stored.graph, weight.value));
        }
        let (header, total) = lay_out(&mut weights, build);
        let (path, start) = (dir.join(stored.weights), header.len() as u64);
        let create = || {
            let file = File::create(&path)?;
            file.write_all_at(&header, 0)?;
            file.set_len(start + total)?;
            Ok(file)
        };
        let file = create().map_err(at(&path))?;
        Ok(WeightFile { graph: stored.graph, path, file, weights, start, total })
    }

    /// Has everything on the disk, as far as there is one.
    pub fn sync(&self) -> Result<(), ArtifactError> {
        let synced = self.file.sync_all();
        synced
            .or_else(|e| if e.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(e) })
            .map_err(at(&self.path))
    }

    /// Packs and writes a weight, some rows at a time.
    fn write(
        &self,
        weight: &Weight<'_>,
        whole: &Mutex<()>,
        wrote: &dyn Fn(u64),
    ) -> Result<(), ArtifactError> {
        let pieces = pieces(self.graph, weight.value, weight.buffer.storage);
        // What cannot be made in pieces may be large.
        let _one = (pieces.len() == 1).then(|| whole.lock());
        let all = pieces.last().map_or(0, |rows| rows.end);
        // The text of the graph has the hashes of constants, and wants them one after another.
        let mut read: Vec<_> = constants(self.graph, weight.value).map(|(.., data)| data.reading()).collect();
        for rows in pieces {
            for ((part, bytes), offset) in packed(self.graph, weight, &rows)?.iter().zip(&weight.offsets) {
                let before = part.stored(rows.start).map_or(0, |(_, bytes)| bytes as u64);
                self.file.write_all_at(bytes, self.start + offset + before).map_err(at(&self.path))?;
                wrote(bytes.len() as u64);
            }
            for constant in &mut read {
                constant.passed(rows.end, all);
            }
        }
        Ok(())
    }
}

/// Packs and writes all weights on `threads` threads, this one among them when `meanwhile` is done. Of several errors the
/// one of `meanwhile` is reported, or that of the first weight.
pub(super) fn write<T>(
    files: &[WeightFile<'_>],
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
    meanwhile: impl FnOnce() -> Result<T, ArtifactError>,
) -> Result<T, ArtifactError> {
    let all: Vec<_> = files.iter().flat_map(|file| file.weights.iter().map(move |w| (file, w))).collect();
    let total = files.iter().map(|file| file.total).sum();
    let (next, done, whole) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(()));
    let wrote = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let first_error: Mutex<Option<(usize, ArtifactError)>> = Mutex::new(None);
    let take = || {
        let n = next.fetch_add(1, Ordering::Relaxed);
        all.get(n).map(|item| (n, item))
    };
    let work = || {
        while let Some((n, (file, weight))) = take() {
            let Err(error) = file.write(weight, &whole, &wrote) else { continue };
            next.store(all.len(), Ordering::Relaxed);
            let mut first = first_error.lock().expect("no thread panics while it holds the lock");
            if first.as_ref().is_none_or(|(before, _)| n < *before) {
                *first = Some((n, error));
            }
        }
    };
    let made = std::thread::scope(|scope| {
        for _ in 1..threads.min(all.len()) {
            scope.spawn(work);
        }
        let made = meanwhile();
        if made.is_err() {
            next.store(all.len(), Ordering::Relaxed);
        }
        work();
        made
    })?;
    first_error.into_inner().expect("no thread panicked").map_or(Ok(made), |(_, error)| Err(error))
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

/// The bytes of each part of some rows, made of finite numbers.
fn packed<'a>(
    graph: &'a Graph,
    weight: &Weight<'_>,
    rows: &Range<usize>,
) -> Result<Vec<PackedPart<'a>>, ArtifactError> {
    let (value, ty) = (weight.value, &weight.buffer.ty);
    let parts = pack_rows(graph, value, weight.buffer.storage, rows.clone())
        .map_err(|error| non_finite(graph, value).unwrap_or(error.into()))?;
    let wrong = |(part, bytes): &&PackedPart<'_>| Some(bytes.len()) != part.stored(rows.len()).map(|s| s.1);
    if let Some((_, bytes)) = parts.iter().find(wrong) {
        let reason = format!("{} bytes of data are not {rows:?} of {ty}", bytes.len());
        return Err(InterpError::Op { op: "const", reason }.into());
    }
    // What is computed was checked on the way.
    let unchecked = parts.iter().any(|(part, bytes)| matches!(bytes, Cow::Borrowed(bytes) if first_non_finite(part.dtype, bytes).is_some()));
    if unchecked { Err(non_finite(graph, value).expect("it is there")) } else { Ok(parts) }
}

/// The first number of an expression's constants that is not finite.
fn non_finite(graph: &Graph, value: ValueId) -> Option<ArtifactError> {
    constants(graph, value).find_map(|(name, leaf, data)| {
        let element = data.first_non_finite(graph.ty(leaf).dtype)?;
        Some(ArtifactError::NonFinite { tensor: name.to_string(), element })
    })
}

fn has_data(graph: &Graph, value: ValueId) -> bool {
    leaves(graph, value).into_iter().all(|leaf| match graph.op(leaf) {
        Op::Const { name } => graph.constants.get(name).is_some_and(|data| data.size().is_some()),
        _ => true,
    })
}

/// The constants that an expression is made of, as far as there is data.
fn constants(graph: &Graph, value: ValueId) -> impl Iterator<Item = (&Arc<str>, ValueId, &ConstData)> {
    leaves(graph, value).into_iter().filter_map(|leaf| {
        let Op::Const { name } = graph.op(leaf) else { return None };
        Some((name, leaf, graph.constants.get(name)?))
    })
}

/// The values that an expression is made of.
fn leaves(graph: &Graph, value: ValueId) -> Vec<ValueId> {
    let operands = graph.operands(value);
    if operands.is_empty() {
        vec![value]
    } else {
        operands.into_iter().flat_map(|v| leaves(graph, v)).collect()
    }
}
