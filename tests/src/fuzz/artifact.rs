//! Artifacts, forged: their manifests vouch for whatever their files hold.

use std::path::Path;

use fireq_ir::artifact::{
    CPU_LIBRARY, CUDA_PLAN, CUDA_PROGRAM, CUDA_WEIGHTS, GRAPH, MANIFEST, Manifest, PLAN, WEIGHTS,
};
use fireq_ir::plan::verify_plan;
use fireq_runtime::cuda::{Needs, Room};
use fireq_runtime::{Artifact, Executor, Limits, RuntimeError};
use serde_json::Value;

use super::{files, scratch, show};

/// Manifest, plan for CPUs, plan for GPUs, program and weights. What opens is inside its buffers.
pub fn artifact(bytes: &[u8]) {
    let [manifest, plan, cuda_plan, program, weights] = files(bytes);
    open(&[
        (MANIFEST, manifest),
        (PLAN, plan),
        (CUDA_PLAN, cuda_plan),
        (CUDA_PROGRAM, program),
        (WEIGHTS, weights),
        (CUDA_WEIGHTS, weights),
        (GRAPH, b""),
        (CPU_LIBRARY, b""),
    ]);
}

/// The program of an artifact that is otherwise one that was compiled.
pub fn program(bytes: &[u8]) {
    open(&[
        (MANIFEST, include_bytes!("../../fuzz/gpu/manifest.json")),
        (CUDA_PLAN, include_bytes!("../../fuzz/gpu/plan.sm_90a.ir")),
        (CUDA_PROGRAM, bytes),
        (CUDA_WEIGHTS, include_bytes!("../../fuzz/gpu/weights.sm_90a.safetensors")),
        (GRAPH, b""),
    ]);
}

fn open(files: &[(&str, &[u8])]) {
    check_manifest(files[0].1);
    let manifest = vouching(files[0].1, &files[1..]);
    let all: Vec<(&str, &[u8])> =
        [(MANIFEST, &manifest[..])].into_iter().chain(files[1..].iter().copied()).collect();
    let dir = scratch::folder("artifact", &all);
    for result in
        [Artifact::open(&dir).and_then(|a| on_cpu(&a)), Artifact::open_for_gpu(&dir).and_then(|a| on_gpu(&a))]
    {
        if let Err(error) = result {
            show(&error);
            assert!(error.hint().is_none_or(|hint| !hint.is_empty()));
        }
    }
    if let Err(error) = Artifact::describe(&dir) {
        show(&error);
    }
}

/// What parses prints to what parses to the same, and names only files below the folder that it is in.
fn check_manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let manifest = match Manifest::parse(text) {
        Ok(manifest) => manifest,
        Err(error) => return show(&error),
    };
    let again = Manifest::parse(&manifest.to_json()).expect("what was written parses");
    assert_eq!(again, manifest);
    for name in manifest.files.keys() {
        let inside = |part| matches!(part, std::path::Component::Normal(_));
        assert!(Path::new(name).components().all(inside), "{name:?} leads out");
    }
}

/// The manifest with the hashes of these files, of which it lists some: what a forger would write.
fn vouching(manifest: &[u8], files: &[(&str, &[u8])]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(manifest) else { return manifest.to_vec() };
    let Some(listed) = value.get_mut("files").and_then(Value::as_object_mut) else {
        return manifest.to_vec();
    };
    for (file, bytes) in files {
        if let Some(hash) = listed.get_mut(*file) {
            *hash = blake3::hash(bytes).to_hex().as_str().into();
        }
    }
    value.to_string().into_bytes()
}

/// Bytes for each token that are allocated here; a plan may claim any number.
const MOST: usize = 1 << 20;

/// Buffers are made, and the library, which is none, is not loaded.
fn on_cpu(artifact: &Artifact) -> Result<(), RuntimeError> {
    verify_plan(&artifact.plan).expect("what opens is verified");
    artifact.weights()?.wait()?;
    let limits = Limits { tokens: 2, context: 3, threads: 1 };
    let row: usize = artifact.plan.buffers.iter().flat_map(row_bytes).fold(0, usize::saturating_add);
    if artifact.plan.arena_bytes_per_token.saturating_add(row) > MOST {
        return Ok(());
    }
    Executor::new(artifact.plan.clone(), artifact.weights()?, &artifact.library(), limits).map(drop)
}

fn row_bytes(buffer: &fireq_ir::plan::Buffer) -> Vec<usize> {
    let list = fireq_ir::plan::parts(&buffer.ty, buffer.storage).unwrap_or_default();
    list.iter().map(fireq_ir::plan::Part::row_bytes).collect()
}

/// The program is checked, and what it takes is counted.
fn on_gpu(artifact: &Artifact) -> Result<(), RuntimeError> {
    let needs = Needs::of(artifact)?;
    verify_plan(&needs.plan).expect("what opens is verified");
    for room in [Room::of_one(1, 1), Room::of_one(4096, 512)] {
        assert!(needs.footprint(room).total() > 0);
    }
    artifact.random_cuda_weights(1)?.wait()
}
