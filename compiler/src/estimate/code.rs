//! How long code takes: that for CPUs is made, of the kernels for GPUs one.

use std::collections::BTreeMap;
use std::time::Instant;

use fireq_codegen::cuda::nvrtc;
use fireq_codegen::cuda::select::select;
use fireq_ir::plan::Plan;
use fireq_kernels::cuda::Unit;

use super::{Compilation, Term};

/// What was measured.
#[derive(Default)]
pub(super) struct Code {
    /// Seconds of one thread.
    pub cpu_seconds: f64,
    /// Seconds of all threads.
    pub cuda_seconds: f64,
    pub terms: Vec<Term>,
    /// What takes room in the artifact, how many bytes, and what that rests on.
    pub bytes: Vec<(&'static str, u64, String)>,
    /// What could not be measured.
    pub without: Vec<String>,
}

pub(super) fn measure(of: &Compilation<'_>) -> Code {
    let mut code = Code::default();
    if let Some(lowered) = &of.plans.cpu {
        cpu(&mut code, &lowered.plan, of);
    }
    if let Some((_, lowered)) = &of.plans.cuda {
        cuda(&mut code, &lowered.plan, of);
    }
    code
}

#[cfg(feature = "llvm")]
fn cpu(code: &mut Code, plan: &Plan, of: &Compilation<'_>) {
    let began = Instant::now();
    let made = tempfile::tempdir().map_err(|e| e.to_string()).and_then(|dir| {
        let library = dir.path().join("model.so");
        fireq_codegen::llvm::compile(plan, of.build.cpu, &library).map_err(|e| e.to_string())?;
        super::size(&library).ok_or_else(|| "no library".to_string())
    });
    match made {
        Err(reason) => code.without.push(format!("code for CPUs: {reason}")),
        Ok(bytes) => {
            code.cpu_seconds = began.elapsed().as_secs_f64();
            let basis = "measured: made once in this run, on one thread beside the weights";
            code.terms.push(Term { what: "code for CPUs", value: code.cpu_seconds, basis: basis.into() });
            code.bytes.push(("code for CPUs", bytes, "measured: made in this run".into()));
        }
    }
}

#[cfg(not(feature = "llvm"))]
fn cpu(code: &mut Code, _: &Plan, _: &Compilation<'_>) {
    code.without.push("code for CPUs: this build has no LLVM".into());
}

/// Compiles the kernel whose source is of middle length.
fn cuda(code: &mut Code, plan: &Plan, of: &Compilation<'_>) {
    let choices = select(plan, &of.build.tuning).choices;
    let units: BTreeMap<String, Unit> =
        choices.into_iter().filter_map(|choice| choice.unit).map(|unit| (unit.name.clone(), unit)).collect();
    let mut sources: Vec<(String, String)> =
        units.into_iter().filter_map(|(name, unit)| Some((name, unit.source().ok()?))).collect();
    sources.sort_by_key(|(name, source)| (source.len(), name.clone()));
    let Some((name, source)) = sources.get(sources.len() / 2) else { return };
    let began = Instant::now();
    match nvrtc::compile(name, source) {
        Err(reason) => code.without.push(format!("kernels for GPUs: {reason}")),
        Ok(made) => {
            let each = began.elapsed().as_secs_f64();
            let (count, threads) = (sources.len(), of.build.threads.max(1).min(sources.len()));
            code.cuda_seconds = each * count as f64 / threads as f64;
            let basis = format!(
                "{count} kernels, of which one took {each:.2} s in this run; those in the user's cache take none"
            );
            code.terms.push(Term { what: "kernels for GPUs", value: code.cuda_seconds, basis });
            let texts: usize = sources.iter().map(|(_, source)| source.len()).sum();
            let bytes = texts + count * (made.ptx.len() + made.cubin.len());
            let basis = format!("{count} sources, with the PTX and cubin of one for each");
            code.bytes.push(("kernels for GPUs", bytes as u64, basis));
        }
    }
}
