//! What was measured, as a table and as JSON.

use serde_json::{Value, json};

use super::batched::Report;
use super::by_kernel::table_of;
use super::cases::Case;
use super::machine::Peak;
use super::runner::Measured;
use crate::cli::Bench;
use crate::commands::output::{bytes, emit, emit_json, table};
use crate::failure::Outcome;

/// Prints the report in the form that the options ask for.
pub fn print(report: &Report, options: &Bench) -> Outcome {
    if options.json { emit_json(&as_json(report, options)) } else { emit(&as_text(report, options)) }
}

fn as_json(report: &Report, options: &Bench) -> Value {
    let case = |(case, result): &(Case, Result<Measured, String>)| {
        let mut value = json!(case);
        match result {
            Ok(measured) => value["measured"] = json!(measured),
            Err(reason) => value["does_not_fit"] = json!(reason),
        }
        if let (Ok(measured), Some(peak)) = (result, &report.peak) {
            let (operations, read) = rates(measured);
            value["of_peak"] =
                json!({ "operations": operations / peak.operations, "bytes": read / peak.bytes });
        }
        value
    };
    let (footprint, free) = &report.memory;
    json!({
        "model": report.model[0],
        "recipe": report.model[1],
        "random_weights": report.seed,
        "gpu": report.gpu,
        "peak": report.peak,
        "memory": { "bytes": footprint, "total": footprint.total(), "free": free },
        "step_tokens": options.step_tokens,
        "repeat": options.repeat,
        "keys": KEYS,
        "cases": report.cases.iter().map(case).collect::<Vec<_>>(),
    })
}

/// How sequences come by what they have before they are decoded.
const KEYS: &str = "read by the model";

fn as_text(report: &Report, options: &Bench) -> String {
    let mut text = head(report, options);
    let titles = ["tokens/s", "ms/step", "90 %", "steps", "TFLOP/s", "of peak", "GB/s", "of peak", ""];
    let lines =
        report.cases.iter().filter_map(|(case, result)| Some(row(*case, result.as_ref().ok()?, report)));
    let rows: Vec<[String; 9]> = std::iter::once(titles.map(String::from)).chain(lines).collect();
    text += &table(&rows, 8);
    for (case, result) in &report.cases {
        match result {
            Err(reason) => text += &format!("  {} does not fit: {reason}\n", title(*case)),
            Ok(Measured { kernels: Some(kernels), .. }) => {
                text += &format!("\n{}, {}\n{}", title(*case), repetition(*case), table_of(kernels));
            }
            Ok(_) => {}
        }
    }
    text
}

fn head(report: &Report, options: &Bench) -> String {
    let (footprint, free) = &report.memory;
    let weights =
        report.seed.map_or_else(|| "its weights".into(), |seed| format!("random weights of seed {seed}"));
    let peak = report.peak.as_ref().map_or_else(
        || "unknown; --peak gives it".into(),
        |peak| {
            format!(
                "{:.2} TB/s, {:.0} TFLOP/s in FP8 ({})",
                peak.bytes / 1e12,
                peak.operations / 1e12,
                peak.source
            )
        },
    );
    let [weight, cache, arena, workspace] =
        [footprint.weights, footprint.cache, footprint.arena, footprint.workspace].map(|n| bytes(n as u64));
    format!(
        "{}, {weights}, on {}\n  peak    {peak}\n  memory  weights {weight}, cache {cache}, values of a step {arena}, workspace {workspace}; {} are free\n  \
         prompts in steps of at most {} tokens, median of {}; decoding {} steps, each token sampled, after keys that the model read\n  \
         TFLOP/s of products and attention; GB/s of weights and keys, each step's once\n\n",
        report.model[0],
        report.gpu.name,
        bytes(*free as u64),
        options.step_tokens,
        options.repeat,
        options.decode,
    )
}

fn repetition(case: Case) -> &'static str {
    match case {
        Case::Prefill { .. } => "one repetition",
        Case::Decode { .. } => "one step",
    }
}

fn title(case: Case) -> String {
    match case {
        Case::Prefill { sequences, tokens } => format!("prefill {sequences} x {tokens}"),
        Case::Decode { sequences, after } => format!("decode {sequences} after {after}"),
    }
}

/// Operations and bytes a second.
fn rates(measured: &Measured) -> (f64, f64) {
    let Measured { work, seconds, .. } = measured;
    ((work.products + work.attention) / seconds, work.bytes / seconds)
}

fn row(case: Case, measured: &Measured, report: &Report) -> [String; 9] {
    let (operations, read) = rates(measured);
    let share = |rate: f64, of: fn(&Peak) -> f64| {
        report.peak.as_ref().map_or_else(|| "–".into(), |peak| format!("{:.1} %", 100.0 * rate / of(peak)))
    };
    let [median, high] = measured.step_seconds.map(|seconds| format!("{:.3}", 1e3 * seconds));
    [
        format!("{:.1}", measured.tokens_per_second),
        median,
        high,
        measured.steps.to_string(),
        format!("{:.1}", operations / 1e12),
        share(operations, |peak| peak.operations),
        format!("{:.1}", read / 1e9),
        share(read, |peak| peak.bytes),
        title(case),
    ]
}
