//! New GPU code for an artifact that exists.

use std::fs;
use std::path::Path;

use fireq_codegen::artifact::{ArtifactError, recode};
use fireq_ir::artifact::{CUDA_KERNELS, CudaCode, MANIFEST, Manifest};

use super::{contents, model, write_model};

fn gpu_code(dir: &Path, name: &str) -> Result<CudaCode, ArtifactError> {
    let path = dir.join(CUDA_KERNELS).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, name).map_err(|source| ArtifactError::Io { path, source })?;
    Ok(CudaCode { arch: "sm_90a".into(), kernels: vec![] })
}

#[test]
fn new_gpu_code_replaces_the_old_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.fireq");
    let manifest = write_model(&model(), &out, 1).unwrap();
    let before = contents(&out);
    let first = recode(&out, &manifest, &[], |dir| gpu_code(dir, "one.cubin")).unwrap();
    let texts = [("report.json", "[]\n".to_string())];
    let second = recode(&out, &first, &texts, |dir| gpu_code(dir, "two.cubin")).unwrap();
    let after = contents(&out);
    assert_eq!(Manifest::parse(std::str::from_utf8(&after[MANIFEST]).unwrap()).unwrap(), second);
    assert_eq!(second.cuda.unwrap().arch, "sm_90a");
    assert_eq!(after["report.json"], b"[]\n");
    assert_eq!(after["kernels/two.cubin"], b"two.cubin");
    assert!(!after.contains_key("kernels/one.cubin"));
    assert_eq!(second.files.len() + 1, after.len(), "the manifest lists every other file");
    for (name, bytes) in before.iter().filter(|(name, _)| *name != MANIFEST && *name != "report.json") {
        assert_eq!(after[name], *bytes, "{name}");
        assert_eq!(second.files[name], manifest.files[name], "{name}");
    }
}

#[test]
fn gpu_code_that_fails_leaves_the_artifact_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.fireq");
    let manifest = write_model(&model(), &out, 1).unwrap();
    let before = contents(dir.path());
    let failed = recode(&out, &manifest, &[], |dir| {
        gpu_code(dir, "half.cubin")?;
        Err(ArtifactError::Code("no".into()))
    });
    assert!(matches!(failed, Err(ArtifactError::Code(_))));
    assert_eq!(contents(dir.path()), before);
}
