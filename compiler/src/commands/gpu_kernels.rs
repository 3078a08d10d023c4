//! GPU kernels of an artifact: what is compiled, what it takes, and what has no kernel yet.

use std::collections::BTreeSet;
use std::fs;

use fireq_codegen::cuda::cubin::{Resources, resources};
use fireq_ir::artifact::{CUDA_KERNELS, CudaCode, CudaKernel};
use fireq_runtime::Artifact;
use serde_json::{Value, json};

use super::output::{emit, emit_json};
use crate::failure::{Failure, Outcome};

/// What a compilation says of its GPU code.
pub fn text(code: &CudaCode) -> String {
    let compiled: BTreeSet<&str> =
        code.kernels.iter().filter(|kernel| kernel.compiled).map(|kernel| &*kernel.name).collect();
    let compiled = compiled.len();
    let mut missing: Vec<&str> = code.missing().map(|kernel| kernel.shape.as_str()).collect();
    missing.sort_unstable();
    missing.dedup();
    let note = match missing.as_slice() {
        [] => String::new(),
        missing => format!("; none yet for {}, so that it does not run there", missing.join(", ")),
    };
    format!("  {}    {compiled} kernels{note}\n", code.arch)
}

/// `fireq inspect --kernels`: every kernel, with what its cubin says it takes.
pub fn inspect(artifact: &Artifact, as_json: bool) -> Outcome {
    let Some(code) = &artifact.manifest.cuda else {
        let kernels = &artifact.manifest.kernels;
        if as_json {
            return emit_json(&json!({ "cpu": kernels, "cuda": null }));
        }
        return emit(
            &kernels.iter().map(|(name, why)| format!("{name}\n  reason     {why}\n")).collect::<String>(),
        );
    };
    let taken = code.kernels.iter().map(|kernel| taken(artifact, kernel)).collect::<Outcome<Vec<_>>>()?;
    if as_json {
        let kernels: Vec<Value> =
            code.kernels.iter().zip(&taken).map(|(k, taken)| kernel_json(k, *taken)).collect();
        return emit_json(
            &json!({ "cpu": artifact.manifest.kernels, "cuda": { "arch": code.arch, "kernels": kernels } }),
        );
    }
    emit(&code.kernels.iter().zip(&taken).map(|(k, taken)| kernel_text(k, *taken)).collect::<String>())
}

/// What the cubin of a compiled kernel says; only files that the manifest vouches for are read.
fn taken(artifact: &Artifact, kernel: &CudaKernel) -> Outcome<Option<Resources>> {
    if !kernel.compiled {
        return Ok(None);
    }
    let file = format!("{CUDA_KERNELS}/{}.cubin", kernel.name);
    if !artifact.manifest.files.contains_key(&file) {
        let message = format!("the manifest does not list `{file}`");
        return Err(Failure::new(message).hint("compile the model again"));
    }
    let path = artifact.dir.join(file);
    let damaged = |e: &dyn std::error::Error| {
        let failure = Failure::from_error(e).within(format!("cannot read `{}`", path.display()));
        failure.hint("compile the model again")
    };
    let cubin = fs::read(&path).map_err(|e| damaged(&e))?;
    resources(&cubin, &kernel.name).map(Some).map_err(|e| damaged(&e))
}

fn kernel_json(kernel: &CudaKernel, taken: Option<Resources>) -> Value {
    let taken =
        taken.map(|t| json!({ "registers": t.registers, "shared_bytes": t.shared, "local_bytes": t.local }));
    json!({
        "name": kernel.name,
        "compiled": kernel.compiled,
        "launches": kernel.launches,
        "count": kernel.count,
        "tokens": kernel.tokens,
        "keys": kernel.keys,
        "shape": kernel.shape,
        "config": kernel.config,
        "reason": kernel.reason,
        "resources": taken,
    })
}

fn kernel_text(kernel: &CudaKernel, taken: Option<Resources>) -> String {
    let launches = match kernel.count {
        0 => "beside the plan".to_string(),
        count => format!("{} ({count} a step)", kernel.launches.join(", ")),
    };
    let mut text = format!("{}\n  launches   {launches}\n  shape      {}\n", kernel.name, kernel.shape);
    if let Some(tokens) = kernel.tokens {
        text += &format!("  tokens     {tokens}\n");
    }
    if let Some(keys) = kernel.keys {
        text += &format!("  keys       {keys}\n");
    }
    if !kernel.config.is_empty() {
        text += &format!("  config     {}\n", kernel.config);
    }
    text += &format!("  reason     {}\n", kernel.reason);
    if let Some(Resources { registers, shared, local }) = taken {
        let spills = if local == 0 { "no spills".into() } else { format!("spills into {local} B") };
        text += &format!("  takes      {registers} registers, {shared} B shared memory, {spills}\n");
    }
    text
}
