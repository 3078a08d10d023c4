//! Writing artifacts: everything into a temporary directory beside the output, which is renamed when it is complete.

mod header;
mod recode;
mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fireq_ir::Graph;
use fireq_ir::artifact::{
    CUDA_PLAN, CUDA_WEIGHTS, CudaCode, GRAPH, MANIFEST, Manifest, ModelFacts, PLAN, SCHEMA, Target, WEIGHTS,
};
use fireq_ir::interp::InterpError;
use fireq_ir::plan::{Lowered, print_plan};
use fireq_ir::text::print_graph;
use thiserror::Error;

pub use recode::recode;
use weights::WeightFile;

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

/// Why no artifact was written. Nothing is left behind, and an earlier artifact of the same name is as it was.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The output exists and is something else.
    #[error("`{}` exists and is not an artifact", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A weight has a number that is not finite.
    #[error("tensor `{tensor}` has a NaN or infinity at element {element}")]
    NonFinite {
        /// The tensor's name.
        tensor: String,
        /// Index of the first such element.
        element: usize,
    },
    /// A weight could not be computed.
    #[error(transparent)]
    Weight(#[from] InterpError),
    /// Code generation failed.
    #[error(transparent)]
    Code(Box<dyn std::error::Error + Send + Sync>),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArtifactError + '_ {
    move |source| ArtifactError::Io { path: path.to_path_buf(), source }
}

/// Writes the artifact `out`. `generate` writes code into the directory it is given and says what for; `progress` is
/// told bytes of weights done and in all. The same build gives the same bytes, on any number of threads.
pub fn write(
    build: &Build<'_>,
    out: &Path,
    generate: impl FnOnce(&Path) -> Result<Code, ArtifactError>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Manifest, ArtifactError> {
    let replaces = check_output(out)?;
    let parent = parent(out);
    let missing: Vec<&Path> = parent.ancestors().take_while(|dir| !dir.exists()).collect();
    let written = fs::create_dir_all(parent)
        .and_then(|()| tempfile::Builder::new().prefix(".fireq-").tempdir_in(parent))
        .map_err(at(parent))
        .and_then(|temporary| {
            let manifest = fill(build, temporary.path(), generate, progress)?;
            publish(temporary, out, replaces)?;
            Ok(manifest)
        });
    if written.is_err() {
        // Innermost first; one that someone else has put something into stays.
        for dir in missing {
            let _ = fs::remove_dir(dir);
        }
    }
    written
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether `out` is an artifact to be replaced; anything else that exists is refused.
pub fn check_output(out: &Path) -> Result<bool, ArtifactError> {
    if out.symlink_metadata().is_err() {
        return Ok(false);
    }
    let manifest = fs::read(out.join(MANIFEST)).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
    // Of any version: an artifact of an older fireq is what one most wants to replace.
    let made = manifest["target"].is_object() || manifest["cuda"].is_object();
    let ours = manifest["schema"].is_u64() && manifest["files"].is_object() && made;
    if ours { Ok(true) } else { Err(ArtifactError::Exists(out.to_path_buf())) }
}

fn fill(
    build: &Build<'_>,
    dir: &Path,
    generate: impl FnOnce(&Path) -> Result<Code, ArtifactError>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Manifest, ArtifactError> {
    let weights: Result<Vec<_>, _> =
        build.plans.iter().map(|stored| WeightFile::create(build, stored, dir)).collect();
    let weights = weights?;
    let code = weights::write(&weights, build.threads, progress, || generate(dir))?;
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| weights.iter().try_for_each(WeightFile::sync));
        let manifest = describe(build, dir, code)?;
        synced.join().expect("does not panic")?;
        Ok(manifest)
    })
}

/// Writes everything besides code and weights, the manifest at last.
fn describe(build: &Build<'_>, dir: &Path, code: Code) -> Result<Manifest, ArtifactError> {
    let plans = build.plans.iter().map(|stored| (stored.plan, print_plan(&stored.lowered.plan)));
    let ours: Vec<_> = plans.chain([(GRAPH, print_graph(build.graph))]).collect();
    for (name, text) in ours.iter().chain(&build.texts) {
        fs::write(dir.join(name), text).map_err(at(&dir.join(name)))?;
    }
    for source in &build.copies {
        let Some(name) = source.file_name() else { continue };
        // The content only: a copy of a read-only file is an artifact's own file.
        let content = fs::read(source).map_err(at(source))?;
        fs::write(dir.join(name), content).map_err(at(&dir.join(name)))?;
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
        files: hashes(dir, dir)?,
    };
    fs::write(dir.join(MANIFEST), manifest.to_json()).map_err(at(&dir.join(MANIFEST)))?;
    Ok(manifest)
}

/// BLAKE3 of every file below `dir`, by path relative to `root`.
fn hashes(root: &Path, dir: &Path) -> Result<BTreeMap<String, String>, ArtifactError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if path.is_dir() {
            found.extend(hashes(root, &path)?);
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            found.insert(name, hash(&path)?);
        }
    }
    Ok(found)
}

/// Read in pieces rather than mapped, so that hashing needs no memory of the file's size.
fn hash(path: &Path) -> Result<String, ArtifactError> {
    let mut file = fs::File::open(path).map_err(at(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 4 << 20];
    loop {
        match io::Read::read(&mut file, &mut piece).map_err(at(path))? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update_rayon(&piece[..n]),
        };
    }
}

/// Renames the finished directory to `out`. An artifact there is moved aside first and removed last.
fn publish(temporary: tempfile::TempDir, out: &Path, replaces: bool) -> Result<(), ArtifactError> {
    let aside = temporary.path().with_extension("old");
    if replaces {
        fs::rename(out, &aside).map_err(at(out))?;
    }
    let finished = temporary.keep();
    if let Err(error) = set_readable(&finished).and_then(|()| fs::rename(&finished, out)) {
        let _ = fs::remove_dir_all(&finished);
        if replaces {
            fs::rename(&aside, out).map_err(at(out))?;
        }
        return Err(at(out)(error));
    }
    if replaces { fs::remove_dir_all(&aside).map_err(at(&aside)) } else { Ok(()) }
}

/// Temporary directories are private; an artifact is as readable as any new directory.
fn set_readable(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}
