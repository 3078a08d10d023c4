//! What `fireq compile --dry-run` says beyond sizes: estimates, each number with what it rests on.

use fireq::compile::CompileError;
use fireq::estimate::{Estimate, Sum};
use fireq::import::{Model, Weights, import_listed};
use serde_json::{Value, json};

use super::output::bytes;
use crate::cli::Compile;
use crate::failure::Outcome;

/// The model in the directory that `options` name, or what of it can be known without its weights.
pub fn imported(options: &Compile) -> Outcome<(Model, Weights)> {
    let dir = options.model.as_deref().expect("only --print-recipe and --shape go without");
    Ok(import_listed(dir, options.import.options()).map_err(CompileError::from)?)
}

/// What of the weights is here, where not all are.
pub fn said(weights: Weights) -> Option<String> {
    match weights {
        Weights::Here => None,
        Weights::Listed { shards, absent, .. } => Some(format!(
            "{absent} of {shards} shards are not here: tensors are those of the index, and their names fit config.json"
        )),
        Weights::Implied => {
            Some("no weights are here: tensors are those that config.json implies, in bf16".into())
        }
    }
}

/// As one value.
pub fn json(estimate: &Estimate) -> Value {
    let run: serde_json::Map<String, Value> =
        estimate.run_memory.iter().map(|(target, sum)| ((*target).to_string(), json!(sum))).collect();
    json!({
        "compile_seconds": estimate.seconds,
        "compile_memory_bytes": estimate.compile_memory,
        "compile_disk_bytes": estimate.compile_disk,
        "artifact_bytes": estimate.artifact,
        "run_memory_bytes": run,
    })
}

/// As lines.
pub fn text(estimate: &Estimate, context: usize) -> String {
    let seconds = |n: f64| if n < 120.0 { format!("{n:.1} s") } else { format!("{:.0} min", n / 60.0) };
    let size = |n: f64| bytes(n as u64);
    let mut all = String::from("estimated, not promised:\n");
    all += &lines("time to compile", &estimate.seconds, &seconds);
    all += &lines("memory while compiling", &estimate.compile_memory, &size);
    all += &lines("artifact", &estimate.artifact, &size);
    all += &lines("disk while compiling", &estimate.compile_disk, &size);
    for (target, sum) in &estimate.run_memory {
        all += &lines(&format!("memory on {target}, one sequence of {context} tokens"), sum, &size);
    }
    all
}

fn lines(head: &str, sum: &Sum, show: &dyn Fn(f64) -> String) -> String {
    let mut text = format!("  {head}: {}\n", show(sum.total));
    for term in &sum.terms {
        text += &format!("    {:>9}  {}: {}\n", show(term.value), term.what, term.basis);
    }
    for without in &sum.without {
        text += &format!("    {:>9}  {without}\n", "without");
    }
    text
}
