//! Opening an artifact: version, machine and hashes first, then everything against everything.
//!
//! What could do harm if it were not what was written is hashed before it is used: code, plans, programs, texts. Of weights
//! dtypes, shapes and places are checked against the plan, so that whatever their bytes, kernels stay within them, and
//! damage makes numbers wrong and nothing else. So their hash, which takes as long as reading all of them does, is
//! computed on other threads while the first step runs, and no result is handed out before it is known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fireq_ir::artifact::{CPU_LIBRARY, CUDA_PLAN, CUDA_WEIGHTS, MANIFEST, Manifest, PLAN, Target, WEIGHTS};
use fireq_ir::plan::{Plan, PlanError, Storage, parse_plan, verify_plan};
use fireq_kernels::cpu::has_feature;

use crate::files::text;
use crate::hash::check_file;
use crate::{RuntimeError, Weights};

/// A checked artifact, ready to run on this machine.
#[derive(Debug)]
pub struct Artifact {
    /// Where it is.
    pub dir: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The verified plan for CPUs; without one, that for GPUs.
    pub plan: Plan,
    /// Those of each plan, by file.
    weights: BTreeMap<&'static str, Weights>,
}

impl Artifact {
    /// Opens the directory `dir`. Every file that the manifest lists is hashed before any of it is used, but for weights: they are
    /// hashed from now on, and [`Executor::run`](crate::Executor::run) waits for the end, or is told by [`Weights::wait`].
    pub fn open(dir: &Path) -> Result<Self, RuntimeError> {
        let artifact = Self::read(dir, &[WEIGHTS])?;
        let Some(target) = &artifact.manifest.target else {
            let arch = artifact.manifest.cuda.as_ref().map_or("no machine", |cuda| cuda.arch.as_str());
            return Err(RuntimeError::NoCpu { arch: arch.into() });
        };
        check_machine(target)?;
        Ok(artifact)
    }

    /// As [`Artifact::open`], for what has GPU code.
    pub fn open_for_gpu(dir: &Path) -> Result<Self, RuntimeError> {
        let artifact = Self::read(dir, &[CUDA_WEIGHTS])?;
        if artifact.manifest.cuda.is_some() { Ok(artifact) } else { Err(RuntimeError::NoGpu) }
    }

    /// For looking only: the code may be for other machines. Weights are hashed, too, before it returns.
    pub fn describe(dir: &Path) -> Result<Self, RuntimeError> {
        let artifact = Self::read(dir, &[WEIGHTS, CUDA_WEIGHTS])?;
        artifact.weights.values().try_for_each(Weights::wait)?;
        Ok(artifact)
    }

    /// All but the machine, and hashes of weights, which begin for those that are `used`.
    fn read(dir: &Path, used: &[&str]) -> Result<Self, RuntimeError> {
        let bad = |source| RuntimeError::Manifest { path: dir.join(MANIFEST), source };
        let manifest = Manifest::parse(&text(dir, MANIFEST)?).map_err(bad)?;
        let (cpu, cuda) = ([PLAN, WEIGHTS, CPU_LIBRARY], [CUDA_PLAN, CUDA_WEIGHTS]);
        let (on_cpu, on_cuda) = (manifest.target.is_some(), manifest.cuda.is_some());
        let required = cpu.iter().filter(|_| on_cpu || !on_cuda).chain(cuda.iter().filter(|_| on_cuda));
        for file in required {
            if !manifest.files.contains_key(*file) {
                return Err(RuntimeError::Unlisted((*file).into()));
            }
        }
        let weights = map(dir, &manifest, used)?;
        let others = manifest.files.iter().filter(|(file, _)| !weights.contains_key(file.as_str()));
        for (file, hash) in others {
            check_file(dir, file, hash)?;
        }
        let some = manifest.weightless;
        let cuda = on_cuda.then(|| plan(dir, CUDA_PLAN, &weights[CUDA_WEIGHTS], some)).transpose()?;
        let cpu = (on_cpu || !on_cuda).then(|| cpu_plan(dir, &weights[WEIGHTS], some)).transpose()?;
        let plan = cpu.or(cuda).ok_or_else(|| RuntimeError::Unlisted(PLAN.into()))?;
        Ok(Artifact { dir: dir.to_path_buf(), manifest, plan, weights })
    }

    /// The verified plan for GPUs.
    pub fn cuda_plan(&self) -> Result<Plan, RuntimeError> {
        plan(&self.dir, CUDA_PLAN, self.of(CUDA_WEIGHTS)?, self.manifest.weightless)
    }

    /// The mapped weights for CPUs. An artifact of shapes has none.
    pub fn weights(&self) -> Result<Weights, RuntimeError> {
        self.mapped(WEIGHTS)
    }

    /// The mapped weights for GPUs. An artifact of shapes has none.
    pub fn cuda_weights(&self) -> Result<Weights, RuntimeError> {
        self.mapped(CUDA_WEIGHTS)
    }

    /// What the artifact has of its weights for GPUs, and for all others random numbers of this seed.
    pub fn random_cuda_weights(&self, seed: u64) -> Result<Weights, RuntimeError> {
        Ok(Weights::Random { known: Box::new(self.of(CUDA_WEIGHTS)?.clone()), seed })
    }

    fn mapped(&self, file: &str) -> Result<Weights, RuntimeError> {
        if self.manifest.weightless { Err(RuntimeError::Weightless) } else { self.of(file).cloned() }
    }

    fn of(&self, file: &str) -> Result<&Weights, RuntimeError> {
        self.weights.get(file).ok_or_else(|| RuntimeError::Unlisted(file.into()))
    }

    /// A text among its files, which was hashed when the artifact was opened.
    pub fn text(&self, file: &str) -> Result<String, RuntimeError> {
        if self.manifest.files.contains_key(file) {
            text(&self.dir, file)
        } else {
            Err(RuntimeError::Unlisted(file.into()))
        }
    }

    /// The shared library with the compiled kernels.
    pub fn library(&self) -> PathBuf {
        self.dir.join(CPU_LIBRARY)
    }
}

/// Maps all files of weights that there are, and begins to hash those that are `used`.
fn map(
    dir: &Path,
    manifest: &Manifest,
    used: &[&str],
) -> Result<BTreeMap<&'static str, Weights>, RuntimeError> {
    let mut mapped = BTreeMap::new();
    for file in [WEIGHTS, CUDA_WEIGHTS] {
        if let Some(hash) = manifest.files.get(file) {
            let weights = Weights::open(dir, file, hash)?;
            if used.contains(&file) {
                weights.begin_check();
            }
            mapped.insert(file, weights);
        }
    }
    Ok(mapped)
}

/// A verified plan whose weights are all there, or as many as there are where `some` are enough.
fn plan(dir: &Path, plan: &str, weights: &Weights, some: bool) -> Result<Plan, RuntimeError> {
    let plan = parse_plan(&text(dir, plan)?).map_err(Box::new)?;
    verify_plan(&plan)?;
    // Weights that do not fit are most likely damaged ones, which is what then is to be said.
    weights.check(&plan, some).or_else(|error| weights.wait().and(Err(error)))?;
    Ok(plan)
}

/// The plan for CPUs, whose kernels read codes in their order.
fn cpu_plan(dir: &Path, weights: &Weights, some: bool) -> Result<Plan, RuntimeError> {
    let plan = plan(dir, PLAN, weights, some)?;
    let foreign = plan.buffers.iter().any(|b| b.storage != Storage::of(&b.ty, &b.place, Storage::Blocked32));
    if foreign { Err(PlanError(vec!["codes are not in the order of CPUs".into()]).into()) } else { Ok(plan) }
}

fn check_machine(target: &Target) -> Result<(), RuntimeError> {
    if target.arch != std::env::consts::ARCH {
        return Err(RuntimeError::Machine { wanted: target.arch.clone() });
    }
    match target.features.iter().find(|feature| !has_feature(feature)) {
        Some(feature) => Err(RuntimeError::Machine { wanted: format!("CPUs with {feature}") }),
        None => Ok(()),
    }
}
