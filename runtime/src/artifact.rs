//! Opening an artifact: version, machine and hashes first, then everything against everything.

use std::fs;
use std::path::{Path, PathBuf};

use fireq_ir::artifact::{CPU_LIBRARY, CUDA_PLAN, CUDA_WEIGHTS, MANIFEST, Manifest, PLAN, Target, WEIGHTS};
use fireq_ir::plan::{Plan, PlanError, Storage, parse_plan, verify_plan};
use fireq_kernels::cpu::has_feature;

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
}

impl Artifact {
    /// Opens the directory `dir`. Every file that the manifest lists is hashed before any of it is used.
    pub fn open(dir: &Path) -> Result<Self, RuntimeError> {
        let artifact = Self::describe(dir)?;
        let Some(target) = &artifact.manifest.target else {
            let arch = artifact.manifest.cuda.as_ref().map_or("no machine", |cuda| cuda.arch.as_str());
            return Err(RuntimeError::NoCpu { arch: arch.into() });
        };
        check_machine(target)?;
        Ok(artifact)
    }

    /// As [`Artifact::open`], for what has GPU code.
    pub fn open_for_gpu(dir: &Path) -> Result<Self, RuntimeError> {
        let artifact = Self::describe(dir)?;
        if artifact.manifest.cuda.is_some() { Ok(artifact) } else { Err(RuntimeError::NoGpu) }
    }

    /// As [`Artifact::open`], for looking only: the code may be for other machines.
    pub fn describe(dir: &Path) -> Result<Self, RuntimeError> {
        let path = dir.join(MANIFEST);
        let manifest =
            Manifest::parse(&read(&path)?).map_err(|source| RuntimeError::Manifest { path, source })?;
        let (cpu, cuda) = ([PLAN, WEIGHTS, CPU_LIBRARY], [CUDA_PLAN, CUDA_WEIGHTS]);
        let (on_cpu, on_cuda) = (manifest.target.is_some(), manifest.cuda.is_some());
        let required = cpu.iter().filter(|_| on_cpu || !on_cuda).chain(cuda.iter().filter(|_| on_cuda));
        for file in required {
            if !manifest.files.contains_key(*file) {
                return Err(RuntimeError::Unlisted((*file).into()));
            }
        }
        for (file, hash) in &manifest.files {
            check_hash(dir, file, hash)?;
        }
        let some = manifest.weightless;
        let cuda = on_cuda.then(|| plan(dir, CUDA_PLAN, CUDA_WEIGHTS, some)).transpose()?;
        let cpu = (on_cpu || !on_cuda).then(|| cpu_plan(dir, some)).transpose()?;
        let plan = cpu.or(cuda).ok_or_else(|| RuntimeError::Unlisted(PLAN.into()))?;
        Ok(Artifact { dir: dir.to_path_buf(), manifest, plan })
    }

    /// The verified plan for GPUs.
    pub fn cuda_plan(&self) -> Result<Plan, RuntimeError> {
        plan(&self.dir, CUDA_PLAN, CUDA_WEIGHTS, self.manifest.weightless)
    }

    /// Maps the weights for CPUs. An artifact of shapes has none.
    pub fn weights(&self) -> Result<Weights, RuntimeError> {
        self.mapped(WEIGHTS)
    }

    /// Maps the weights for GPUs. An artifact of shapes has none.
    pub fn cuda_weights(&self) -> Result<Weights, RuntimeError> {
        self.mapped(CUDA_WEIGHTS)
    }

    /// What the artifact has of its weights for GPUs, and for all others random numbers of this seed.
    pub fn random_cuda_weights(&self, seed: u64) -> Result<Weights, RuntimeError> {
        let known = Box::new(Weights::open(&self.dir.join(CUDA_WEIGHTS))?);
        Ok(Weights::Random { known, seed })
    }

    fn mapped(&self, file: &str) -> Result<Weights, RuntimeError> {
        if self.manifest.weightless {
            Err(RuntimeError::Weightless)
        } else {
            Weights::open(&self.dir.join(file))
        }
    }

    /// The shared library with the compiled kernels.
    pub fn library(&self) -> PathBuf {
        self.dir.join(CPU_LIBRARY)
    }
}

/// A verified plan whose weights are all there, or as many as there are where `some` are enough.
fn plan(dir: &Path, plan: &str, weights: &str, some: bool) -> Result<Plan, RuntimeError> {
    let plan = parse_plan(&read(&dir.join(plan))?).map_err(Box::new)?;
    verify_plan(&plan)?;
    Weights::open(&dir.join(weights))?.check(&plan, some)?;
    Ok(plan)
}

/// The plan for CPUs, whose kernels read codes in their order.
fn cpu_plan(dir: &Path, some: bool) -> Result<Plan, RuntimeError> {
    let plan = plan(dir, PLAN, WEIGHTS, some)?;
    let foreign = plan.buffers.iter().any(|b| b.storage != Storage::of(&b.ty, &b.place, Storage::Blocked32));
    if foreign { Err(PlanError(vec!["codes are not in the order of CPUs".into()]).into()) } else { Ok(plan) }
}

fn read(path: &Path) -> Result<String, RuntimeError> {
    fs::read_to_string(path).map_err(|source| RuntimeError::Io { path: path.to_path_buf(), source })
}

fn check_hash(dir: &Path, file: &str, expected: &str) -> Result<(), RuntimeError> {
    let path = dir.join(file);
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(&path).map_err(|source| RuntimeError::Io { path, source })?;
    let matches = hasher.finalize().to_hex().as_str() == expected;
    if matches { Ok(()) } else { Err(RuntimeError::Hash { file: file.into() }) }
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
