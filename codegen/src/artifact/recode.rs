//! New GPU code for an artifact that exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fireq_ir::artifact::{CUDA_KERNELS, CudaCode, MANIFEST, Manifest, SCHEMA};

use super::sums::{hash, hashes};
use super::{ArtifactError, Partial, at, parent};

/// Replaces the GPU code of the artifact `dir`, whose manifest this is, and the files `texts`; all others stay what they
/// are, and weights are not copied where the file system has links. Until the new artifact is complete the old one is
/// what it was. `generate` writes code into the directory that it is given.
pub fn recode(
    dir: &Path,
    manifest: &Manifest,
    texts: &[(&str, String)],
    generate: impl FnOnce(&Path) -> Result<CudaCode, ArtifactError>,
) -> Result<Manifest, ArtifactError> {
    Partial::open(dir)?.replace(|to| fill(to, dir, manifest, texts, generate))
}

fn fill(
    to: &Path,
    dir: &Path,
    manifest: &Manifest,
    texts: &[(&str, String)],
    generate: impl FnOnce(&Path) -> Result<CudaCode, ArtifactError>,
) -> Result<Manifest, ArtifactError> {
    let mut manifest = manifest.clone();
    let kernels = format!("{CUDA_KERNELS}/");
    manifest
        .files
        .retain(|name, _| !name.starts_with(&kernels) && texts.iter().all(|(text, _)| text != name));
    for name in manifest.files.keys() {
        keep(&dir.join(name), &to.join(name))?;
    }
    // The code is that of this version, which knows all that earlier ones wrote.
    (manifest.schema, manifest.fireq) = (SCHEMA, Some(env!("CARGO_PKG_VERSION").into()));
    manifest.cuda = Some(generate(to)?);
    let folder = to.join(CUDA_KERNELS);
    if folder.exists() {
        manifest.files.extend(hashes(to, &folder, &BTreeMap::new())?);
    }
    for (name, text) in texts {
        let path = to.join(name);
        fs::write(&path, text).map_err(at(&path))?;
        manifest.files.insert((*name).into(), hash(&path)?);
    }
    fs::write(to.join(MANIFEST), manifest.to_json()).map_err(at(&to.join(MANIFEST)))?;
    Ok(manifest)
}

/// A file of the old artifact in the new one.
fn keep(from: &Path, to: &Path) -> Result<(), ArtifactError> {
    fs::create_dir_all(parent(to)).map_err(at(to))?;
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)).map_err(at(from))
}
