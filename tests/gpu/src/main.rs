//! `fireq-gpu BUNDLE -o RESULTS.json`: checks and times every case of a bundle on the first GPU.
//!
//! A bundle is a folder with `cases/*.case` and `kernels/*.cubin`. Exit code 1 says that a case failed.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use fireq_gpu::{Case, Outcome, check, time};
use fireq_runtime::cuda::{Function, Gpu, Module};
use serde_json::{Value, json};

/// Checks and times every case of a bundle on the first GPU.
#[derive(Parser)]
struct Arguments {
    /// The folder with `cases` and `kernels`.
    bundle: PathBuf,
    /// Where results go, as JSON.
    #[arg(short, long)]
    output: PathBuf,
    /// Check only, time nothing: cases without known results are left out.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("{failed} cases failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; the number of failures. Results are written after each case, so that a crash loses none.
fn run(arguments: &Arguments) -> Result<usize, Box<dyn Error>> {
    let gpu = Gpu::open(0)?;
    let mut paths: Vec<PathBuf> = std::fs::read_dir(arguments.bundle.join("cases"))?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    let mut modules = BTreeMap::new();
    let (mut results, mut failed) = (vec![], 0);
    for path in &paths {
        let case = Case::load(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if arguments.check && case.buffers.iter().all(|buffer| buffer.expected.is_none()) {
            continue;
        }
        let function = function(&gpu, &arguments.bundle, &case, &mut modules)?;
        let result = one(&gpu, &function, &case, !arguments.check)?;
        let good = result["passed"] == true;
        failed += usize::from(!good);
        eprintln!("{} {}{}", if good { "ok    " } else { "FAILED" }, case.name, detail(&result));
        results.push(result);
        let all = json!({ "gpu": gpu.facts()?, "failed": failed, "of": paths.len(), "cases": results });
        std::fs::write(&arguments.output, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(failed)
}

fn function(
    gpu: &Gpu,
    bundle: &Path,
    case: &Case,
    modules: &mut BTreeMap<String, Module>,
) -> Result<Function, Box<dyn Error>> {
    if !modules.contains_key(&case.unit) {
        let path = bundle.join("kernels").join(format!("{}.cubin", case.unit));
        let cubin = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        modules.insert(case.unit.clone(), gpu.load(&cubin)?);
    }
    Ok(modules[&case.unit].function(&case.kernel)?)
}

/// What a case gave, with its time if it has a cost.
fn one(gpu: &Gpu, function: &Function, case: &Case, timed: bool) -> Result<Value, Box<dyn Error>> {
    let outcomes = check(gpu, function, case)?;
    let passed = outcomes.iter().all(|(_, outcome)| outcome.is_ok());
    let buffer = |(name, outcome): &Outcome| match outcome {
        Ok(agreement) => json!({ "name": name, "agreement": agreement }),
        Err(wrong) => json!({ "name": name, "wrong": wrong }),
    };
    let buffers: Vec<Value> = outcomes.iter().map(buffer).collect();
    let mut result = json!({
        "name": case.name, "kernel": case.kernel, "shape": case.shape, "resources": function.resources()?,
        "passed": passed, "checked": !buffers.is_empty(), "buffers": buffers,
    });
    if let Some(cost) = case.cost.filter(|_| timed && passed) {
        let timed = time(gpu, function, case)?;
        result["time"] = json!(timed);
        result["bytes_per_second"] = json!(cost.bytes as f64 / timed.median);
        result["flops_per_second"] = json!(cost.flops as f64 / timed.median);
    }
    Ok(result)
}

/// What a line says beside the name.
fn detail(result: &Value) -> String {
    let wrong = result["buffers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|b| Some(format!(": {} {}", b["name"].as_str()?, b["wrong"].as_str()?)));
    let time = result["time"]["median"].as_f64().map(|s| format!("  {:.1} µs", s * 1e6));
    wrong.chain(time).collect()
}
