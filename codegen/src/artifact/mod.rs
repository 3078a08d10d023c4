//! Writing artifacts: everything into a directory beside the output, which is renamed when it is complete and resumed when
//! its process ended before.

mod error;
mod header;
mod journal;
mod made_of;
mod partial;
mod publish;
mod recode;
mod sums;
mod weights;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fireq_ir::artifact::{
    CUDA_PLAN, CUDA_WEIGHTS, CudaCode, GRAPH, MANIFEST, Manifest, ModelFacts, PLAN, SCHEMA, Target, WEIGHTS,
};
use fireq_ir::plan::{Lowered, print_plan};
use fireq_ir::text::print_graph;
use fireq_ir::{Graph, Sources};

pub use error::ArtifactError;
use error::at;
pub use partial::Partial;
use partial::Work;
use publish::publish;
pub use recode::recode;
use sums::hashes;
use weights::{WeightFile, Writing};

/// What goes into an artifact.
pub struct Build<'a> {
    /// The final graph.
    pub graph: &'a Graph,
    /// Its plans, one for each kind of machine.
    pub plans: Vec<Stored<'a>>,
    /// The pipeline that made it, or a name of one.
    pub recipe: &'a str,
    /// Whether weights without data are left out, and the artifact says so; they are an error otherwise.
    pub weightless: bool,
    /// Limits and special tokens.
    pub model: ModelFacts,
    /// Files to copy, such as the tokenizer.
    pub copies: Vec<PathBuf>,
    /// Further files: a name and what is in it.
    pub texts: Vec<(&'static str, String)>,
    /// Threads that pack weights.
    pub threads: usize,
    /// All that constants' data depends on: a build of another key does not go on where one of this key stopped.
    pub key: String,
    /// What data is read from, which must not change meanwhile.
    pub sources: Sources,
}

impl Build<'_> {
    /// An error if something that data is read from has changed since it was opened.
    fn check_sources(&self) -> Result<(), ArtifactError> {
        self.sources.changed().map_or(Ok(()), |path| Err(ArtifactError::Changed(path)))
    }
}

/// A plan and the weights it wants, as files of the artifact.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// The graph that it was lowered from.
    pub graph: &'a Graph,
    /// The plan, and where the weights come from.
    pub lowered: &'a Lowered,
    plan: &'static str,
    weights: &'static str,
}

impl<'a> Stored<'a> {
    /// The plan for CPUs.
    pub fn cpu(graph: &'a Graph, lowered: &'a Lowered) -> Self {
        Stored { graph, lowered, plan: PLAN, weights: WEIGHTS }
    }

    /// The plan for GPUs, lowered from a fused graph.
    pub fn cuda(graph: &'a Graph, lowered: &'a Lowered) -> Self {
        Stored { graph, lowered, plan: CUDA_PLAN, weights: CUDA_WEIGHTS }
    }
}

/// What code generators add: the machines their code runs on, and why each kernel is the way it is.
#[derive(Default)]
pub struct Code {
    /// The CPUs.
    pub target: Option<Target>,
    /// For each symbol of the CPU's plan, the reason of its configuration.
    pub kernels: BTreeMap<String, String>,
    /// The GPU's kernels.
    pub cuda: Option<CudaCode>,
}

/// What the writing of weights says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// An earlier run wrote some of them.
    Resumed {
        /// How many.
        weights: usize,
        /// Of how many.
        of: usize,
        /// Their bytes.
        bytes: u64,
        /// Of how many.
        total: u64,
    },
    /// Bytes done, those of earlier runs among them, and in all.
    Packed(u64, u64),
    /// Bytes read to hash them, and in all.
    Hashed(u64, u64),
}

/// Writes the artifact that `partial` is for. `generate` writes code into the directory it is given and says what for; `tell`
/// is told how far it is. The same build gives the same bytes, on any number of threads, and whether or not earlier
/// runs were stopped on the way.
///
/// What is done is kept where the disk was full or failed, code was not made, or the process ends; a weight that was not
/// done begins again. After a loss of power what did not reach the disk is found by its hash, and made again.
pub fn write(
    build: &Build<'_>,
    partial: &Partial,
    generate: impl FnOnce(&Path) -> Result<Code, ArtifactError>,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Manifest, ArtifactError> {
    let files: Vec<_> = build.plans.iter().map(|stored| WeightFile::of(build, stored)).collect();
    let work = partial.work(&key(build, &files))?;
    let written = fill(build, &files, &work, generate, tell).and_then(|manifest| {
        publish(&work.dir, partial.out(), &partial.old()).map_err(at(partial.out()))?;
        Ok(manifest)
    });
    match &written {
        Ok(_) => partial.clear()?,
        Err(ArtifactError::Io { .. } | ArtifactError::Code(_)) if !work.journal.is_empty() => {}
        // What went wrong is the reason to be told, whether or not this works.
        Err(_) => drop(work.discard()),
    }
    written
}

/// Stands for all that the bytes of weights depend on.
fn key(build: &Build<'_>, files: &[WeightFile<'_>]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    add(build.key.as_bytes());
    for (file, stored) in files.iter().zip(&build.plans) {
        add(file.name.as_bytes());
        add(&file.header);
        add(print_plan(&stored.lowered.plan).as_bytes());
    }
    hasher.finalize()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses what exists and is no artifact, which alone is replaced.
pub fn check_output(out: &Path) -> Result<(), ArtifactError> {
    if out.symlink_metadata().is_err() {
        return Ok(());
    }
    let manifest = fs::read(out.join(MANIFEST)).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
    // Of any version: an artifact of an older fireq is what one most wants to replace.
    let made = manifest["target"].is_object() || manifest["cuda"].is_object();
    let ours = manifest["schema"].is_u64() && manifest["files"].is_object() && made;
    if ours { Ok(()) } else { Err(ArtifactError::Exists(out.to_path_buf())) }
}

fn fill(
    build: &Build<'_>,
    files: &[WeightFile<'_>],
    work: &Work,
    generate: impl FnOnce(&Path) -> Result<Code, ArtifactError>,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Manifest, ArtifactError> {
    let opened: Result<Vec<_>, _> = files.iter().map(|file| file.open(work)).collect();
    let mut opened = opened?;
    copy(build, &work.dir)?;
    tell_resumed(&opened, tell);
    let packed = |done, total| tell(News::Packed(done, total));
    let code = weights::write(&opened, build, &work.journal, &packed, || generate(&work.dir))?;
    let known = loop {
        let found = hash_and_sync(&mut opened, tell)?;
        if let Some(known) = found {
            break known;
        }
        weights::write(&opened, build, &work.journal, &packed, || Ok(()))?;
    };
    let manifest = describe(build, &work.dir, code, &known)?;
    build.check_sources()?;
    work.journal.finish(blake3::hash(manifest.to_json().as_bytes()).to_hex().to_string())?;
    Ok(manifest)
}

/// Says what is written already, and tells constants their hashes.
fn tell_resumed(files: &[Writing<'_>], tell: &(dyn Fn(News) + Sync)) {
    let sum = |sum: (usize, u64), more: (usize, u64)| (sum.0 + more.0, sum.1 + more.1);
    let (weights, bytes) = files.iter().map(Writing::resumed).fold((0, 0), sum);
    let (of, total) = files.iter().map(Writing::all).fold((0, 0), sum);
    if weights > 0 {
        files.iter().for_each(Writing::tell_hashes);
        tell(News::Resumed { weights, of, bytes, total });
    }
}

/// Hashes of files of weights, which are on the disk then; none where something has to be written again.
fn hash_and_sync(
    files: &mut [Writing<'_>],
    tell: &dyn Fn(News),
) -> Result<Option<BTreeMap<String, String>>, ArtifactError> {
    let total = files.iter().map(Writing::size).sum();
    let (mut hashes, mut whole, done) = (BTreeMap::new(), true, Cell::new(0));
    for file in files {
        let passed = |bytes| tell(News::Hashed(done.replace(done.get() + bytes) + bytes, total));
        match file.hash_and_sync(&passed)? {
            Some(hash) => drop(hashes.insert(file.name().to_string(), hash)),
            None => whole = false,
        }
    }
    Ok(Some(hashes).filter(|_| whole))
}

/// Copies files; they are read before the work of packing, not after it.
fn copy(build: &Build<'_>, dir: &Path) -> Result<(), ArtifactError> {
    for source in &build.copies {
        let Some(name) = source.file_name() else { continue };
        // The content only: a copy of a read-only file is an artifact's own file.
        let content = fs::read(source).map_err(at(source))?;
        fs::write(dir.join(name), content).map_err(at(&dir.join(name)))?;
    }
    Ok(())
}

/// Writes everything besides code, weights and copies, the manifest at last. The hashes of some files are `known`.
fn describe(
    build: &Build<'_>,
    dir: &Path,
    code: Code,
    known: &BTreeMap<String, String>,
) -> Result<Manifest, ArtifactError> {
    let plans = build.plans.iter().map(|stored| (stored.plan, print_plan(&stored.lowered.plan)));
    let ours: Vec<_> = plans.chain([(GRAPH, print_graph(build.graph))]).collect();
    for (name, text) in ours.iter().chain(&build.texts) {
        fs::write(dir.join(name), text).map_err(at(&dir.join(name)))?;
    }
    let manifest = Manifest {
        schema: SCHEMA,
        fireq: Some(env!("CARGO_PKG_VERSION").into()),
        name: build.graph.name.clone(),
        recipe: build.recipe.into(),
        target: code.target,
        cuda: code.cuda,
        weightless: build.weightless,
        model: build.model.clone(),
        kernels: code.kernels,
        files: hashes(dir, dir, known)?,
    };
    fs::write(dir.join(MANIFEST), manifest.to_json()).map_err(at(&dir.join(MANIFEST)))?;
    Ok(manifest)
}
