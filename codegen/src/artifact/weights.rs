//! `weights.safetensors`, written some rows at a time: besides them, the largest tensor whose rows depend on each other is in
//! memory, whatever the size of the model.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fireq_ir::interp::InterpError;
use fireq_ir::plan::{Buffer, PackedPart, Place, pack_rows, parts, pieces};
use fireq_ir::{ConstData, Graph, ValueId, first_non_finite};

use super::header::lay_out;
use super::journal::{Journal, Packed};
use super::made_of::{constants, has_data, non_finite};
use super::partial::Work;
use super::publish::sync;
use super::sums::{Claim, hash_checked};
use super::{ArtifactError, Build, Stored, at};

/// A weight of the plan and where its parts go.
pub(super) struct Weight<'a> {
    pub buffer: &'a Buffer,
    pub value: ValueId,
    /// Offset of each part behind the header, in the order of [`parts`].
    pub offsets: Vec<u64>,
}

impl Weight<'_> {
    fn name(&self) -> &str {
        if let Place::Weight(name) = &self.buffer.place { name } else { "" }
    }

    /// Where its parts are, behind the header.
    fn ranges(&self) -> Vec<Range<u64>> {
        let sizes = self.buffer.stored();
        self.offsets.iter().zip(sizes).map(|(start, bytes)| *start..start + bytes as u64).collect()
    }

    fn bytes(&self) -> u64 {
        self.ranges().iter().map(|range| range.end - range.start).sum()
    }
}

/// A file of weights: what will be in it, and where.
pub(super) struct WeightFile<'a> {
    graph: &'a Graph,
    /// Its name.
    pub name: &'static str,
    /// Its beginning.
    pub header: Vec<u8>,
    weights: Vec<Weight<'a>>,
    /// Bytes behind the header.
    total: u64,
}

/// A file of weights that is being written.
pub(super) struct Writing<'a> {
    layout: &'a WeightFile<'a>,
    path: PathBuf,
    file: File,
    /// What an earlier run wrote, by index of the weight.
    resumed: BTreeMap<usize, Packed>,
    /// Indices of weights to be written.
    unwritten: Vec<usize>,
}

impl<'a> WeightFile<'a> {
    /// That of a plan.
    pub fn of(build: &Build<'_>, stored: &Stored<'a>) -> Self {
        let mut weights = collect(stored);
        if build.weightless {
            weights.retain(|weight| has_data(stored.graph, weight.value));
        }
        let (header, total) = lay_out(&mut weights, build);
        WeightFile { graph: stored.graph, name: stored.weights, header, weights, total }
    }

    /// The file in a directory of artifacts, with what the journal says that is written, or new.
    pub fn open(&'a self, work: &Work) -> Result<Writing<'a>, ArtifactError> {
        let path = work.dir.join(self.name);
        let size = self.header.len() as u64 + self.total;
        let open = || {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut header = vec![0; self.header.len()];
            let same = file.metadata()?.len() == size;
            let resumed = same && file.read_exact_at(&mut header, 0).is_ok() && header == self.header;
            if !resumed {
                file.set_len(0)?;
                file.write_all_at(&self.header, 0)?;
                file.set_len(size)?;
            }
            Ok((file, resumed))
        };
        let (file, resumed) = open().map_err(at(&path))?;
        let known = |(n, weight): (usize, &Weight<'_>)| {
            let packed = work.journal.packed.get(&(self.name.to_string(), weight.name().to_string()))?;
            Some((n, packed.clone())).filter(|_| packed.parts.len() == weight.offsets.len())
        };
        let known = self.weights.iter().enumerate().filter(|_| resumed).filter_map(known);
        let resumed: BTreeMap<usize, Packed> = known.collect();
        let unwritten = (0..self.weights.len()).filter(|n| !resumed.contains_key(n)).collect();
        Ok(Writing { layout: self, path, file, resumed, unwritten })
    }
}

impl Writing<'_> {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.layout.header.len() as u64 + self.layout.total
    }

    /// How many weights there are, and their bytes.
    pub fn all(&self) -> (usize, u64) {
        (self.layout.weights.len(), self.layout.total)
    }

    /// How many weights are written by an earlier run, and their bytes.
    pub fn resumed(&self) -> (usize, u64) {
        let bytes = self.resumed.keys().map(|n| self.layout.weights[*n].bytes());
        (self.resumed.len(), bytes.sum())
    }

    fn unwritten(&self) -> impl Iterator<Item = (&Self, &Weight<'_>)> {
        self.unwritten.iter().map(move |n| (self, &self.layout.weights[*n]))
    }

    /// Tells constants the hashes that the journal knows: who asks for one need not read the data again.
    pub fn tell_hashes(&self) {
        for (n, packed) in &self.resumed {
            for (name, _, data) in constants(self.layout.graph, self.layout.weights[*n].value) {
                packed.constants.get(&**name).into_iter().for_each(|hash| data.assume_hash(hash));
            }
        }
    }

    /// BLAKE3 of the file. Of what an earlier run wrote the hashes are compared, and what differs, as after a loss of power,
    /// is taken for unwritten; there is no hash then.
    fn hash(&mut self, passed: &dyn Fn(u64)) -> Result<Option<String>, ArtifactError> {
        let claims = self.resumed.iter().flat_map(|(n, packed)| {
            let ranges = self.layout.weights[*n].ranges().into_iter().zip(&packed.parts);
            ranges.map(|(range, hash)| Claim { range: self.place(&range), hash: hash.clone(), weight: *n })
        });
        let (hash, wrong) = hash_checked(&self.path, claims.collect(), passed)?;
        for n in &wrong {
            self.resumed.remove(n);
        }
        self.unwritten = wrong;
        Ok(Some(hash).filter(|_| self.unwritten.is_empty()))
    }

    fn place(&self, range: &Range<u64>) -> Range<u64> {
        let start = self.layout.header.len() as u64;
        start + range.start..start + range.end
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.layout.name
    }

    /// As [`Writing::hash`], while everything gets to the disk.
    pub fn hash_and_sync(&mut self, passed: &dyn Fn(u64)) -> Result<Option<String>, ArtifactError> {
        let path = self.path.clone();
        std::thread::scope(|scope| {
            let synced = scope.spawn(|| sync(&path).map_err(at(&path)));
            let hash = self.hash(passed);
            synced.join().expect("does not panic").and(hash)
        })
    }

    /// Packs and writes a weight, some rows at a time.
    fn write(
        &self,
        weight: &Weight<'_>,
        whole: &Mutex<()>,
        wrote: &dyn Fn(u64),
    ) -> Result<Packed, ArtifactError> {
        let graph = self.layout.graph;
        let pieces = pieces(graph, weight.value, weight.buffer.storage);
        // What cannot be made in pieces may be large.
        let _one = (pieces.len() == 1).then(|| whole.lock());
        let all = pieces.last().map_or(0, |rows| rows.end);
        // The text of the graph has the hashes of constants, and wants them one after another.
        let mut read: Vec<_> = constants(graph, weight.value).map(|(.., data)| data.reading()).collect();
        let mut sums = vec![blake3::Hasher::new(); weight.offsets.len()];
        for rows in pieces {
            let parts = packed(graph, weight, &rows)?;
            for (((part, bytes), offset), sum) in parts.iter().zip(&weight.offsets).zip(&mut sums) {
                let before = part.stored(rows.start).map_or(0, |(_, bytes)| bytes as u64);
                let place = self.place(&(offset + before..0)).start;
                self.file.write_all_at(bytes, place).map_err(at(&self.path))?;
                sum.update(bytes);
                wrote(bytes.len() as u64);
            }
            for constant in &mut read {
                constant.passed(rows.end, all);
            }
        }
        let known = |(name, _, data): (&Arc<str>, ValueId, &ConstData)| {
            Some((name.to_string(), data.known_hash()?.to_string()))
        };
        let constants = constants(graph, weight.value).filter_map(known).collect();
        Ok(Packed { parts: sums.iter().map(|sum| sum.finalize().to_hex().to_string()).collect(), constants })
    }
}

/// Packs and writes all weights that no earlier run wrote, on `threads` threads, this one among them when `meanwhile` is done.
/// Each is in the journal when it is written and its sources are what they were. Of several errors the one of `meanwhile`
/// is reported, or that of the first weight.
pub(super) fn write<T>(
    files: &[Writing<'_>],
    build: &Build<'_>,
    journal: &Journal,
    progress: &(dyn Fn(u64, u64) + Sync),
    meanwhile: impl FnOnce() -> Result<T, ArtifactError>,
) -> Result<T, ArtifactError> {
    let all: Vec<_> = files.iter().flat_map(Writing::unwritten).collect();
    let total: u64 = files.iter().map(|file| file.layout.total).sum();
    let left: u64 = all.iter().map(|(_, weight)| weight.bytes()).sum();
    let (next, done, whole) = (AtomicUsize::new(0), AtomicU64::new(total - left), Mutex::new(()));
    let wrote = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let first_error: Mutex<Option<(usize, ArtifactError)>> = Mutex::new(None);
    let take = || {
        let n = next.fetch_add(1, Ordering::Relaxed);
        all.get(n).map(|item| (n, item))
    };
    let one = |file: &Writing<'_>, weight: &Weight<'_>| {
        let packed = file.write(weight, &whole, &wrote)?;
        build.check_sources()?;
        journal.packed(file.layout.name, weight.name(), packed)
    };
    let work = || {
        while let Some((n, (file, weight))) = take() {
            let Err(error) = one(file, weight) else { continue };
            next.store(all.len(), Ordering::Relaxed);
            let mut first = first_error.lock().expect("no thread panics while it holds the lock");
            if first.as_ref().is_none_or(|(before, _)| n < *before) {
                *first = Some((n, error));
            }
        }
    };
    let made = std::thread::scope(|scope| {
        for _ in 1..build.threads.min(all.len()) {
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
