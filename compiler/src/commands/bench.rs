//! `fireq bench`: tokens per second, prompt and continuation apart.

use std::time::Instant;

use fireq::engine::Engine;
use fireq::generate::prefill;
use fireq_runtime::Ran;
use serde::Serialize;
use serde_json::json;

use super::open::open;
use super::output::{emit, emit_json, progress, table};
use super::run::write_trace;
use crate::cli::{Bench, Device};
use crate::failure::{Failure, Outcome};

/// Tokens per second of one repetition.
#[derive(Clone, Copy)]
struct Speed {
    prefill: f64,
    decode: f64,
}

/// Prints the medians of all repetitions.
pub fn bench(options: &Bench) -> Outcome {
    let opened = open(&options.model)?;
    check(options, opened.context)?;
    let mut engine = opened.engine(options.prefill + options.decode)?;
    let bar = progress("measuring", options.repeat);
    let mut speeds = vec![];
    for _ in 0..options.repeat {
        speeds.push(measure(&mut engine, options)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let ran = traced(&mut engine, options)?;
    let (prefill, decode) = (median(&speeds, |s| s.prefill), median(&speeds, |s| s.decode));
    let threads = opened.threads;
    let on = match options.model.device {
        Device::Cpu => format!("{threads} threads"),
        Device::Cuda => "on the GPU".into(),
    };
    if options.json {
        return emit_json(&json!({
            "model": opened.name,
            "device": if options.model.device == Device::Cpu { "cpu" } else { "cuda" },
            "threads": threads,
            "repeat": options.repeat,
            "prefill": { "tokens": options.prefill, "tokens_per_second": prefill },
            "decode": { "tokens": options.decode, "tokens_per_second": decode },
            "kernels": options.by_kernel.then(|| kernels(&ran)),
        }));
    }
    emit(&format!(
        "{}, {on}, median of {}\n  prefill  {prefill:10.1} tokens/s  ({} tokens)\n  decode   {decode:10.1} tokens/s  ({} tokens after them)\n",
        opened.name, options.repeat, options.prefill, options.decode,
    ))?;
    if options.by_kernel { emit(&by_kernel(&kernels(&ran))) } else { Ok(()) }
}

/// Launches of one repetition more, where they are wanted.
fn traced(engine: &mut Engine, options: &Bench) -> Outcome<Vec<Ran>> {
    if !options.by_kernel && options.traced.trace.is_none() {
        return Ok(vec![]);
    }
    engine.trace()?;
    measure(engine, options)?;
    let ran = engine.trace()?;
    if let Some(path) = &options.traced.trace {
        write_trace(path, &ran)?;
    }
    Ok(ran)
}

/// A kernel's launches.
#[derive(Serialize)]
struct Timed<'a> {
    kernel: &'a str,
    launches: usize,
    seconds: f64,
}

/// All launches by kernel, those that take longest first.
fn kernels(ran: &[Ran]) -> Vec<Timed<'_>> {
    let mut kernels: Vec<Timed<'_>> = vec![];
    for Ran { kernel, seconds, .. } in ran {
        match kernels.iter_mut().find(|known| known.kernel == kernel) {
            Some(known) => (known.launches, known.seconds) = (known.launches + 1, known.seconds + seconds),
            None => kernels.push(Timed { kernel, launches: 1, seconds: *seconds }),
        }
    }
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    kernels
}

fn by_kernel(kernels: &[Timed<'_>]) -> String {
    let total: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let line = |Timed { kernel, launches, seconds }: &Timed<'_>| {
        let share = format!("{:.1} %", 100.0 * seconds / total.max(f64::MIN_POSITIVE));
        [format!("{:.2}", 1e3 * seconds), share, launches.to_string(), (*kernel).to_string()]
    };
    let head = ["ms", "share", "launches", "kernel"].map(String::from);
    table(&std::iter::once(head).chain(kernels.iter().map(line)).collect::<Vec<_>>(), 3)
}

fn check(options: &Bench, context: usize) -> Outcome {
    if options.prefill == 0 || options.decode == 0 || options.repeat == 0 {
        return Err(Failure::new("there is nothing to measure").hint("give positive counts"));
    }
    let wanted = options.prefill.saturating_add(options.decode);
    if wanted > context {
        let message = format!("{wanted} tokens do not fit the context of {context}");
        return Err(Failure::new(message).hint("lower --prefill or --decode"));
    }
    Ok(())
}

fn measure(engine: &mut Engine, options: &Bench) -> Outcome<Speed> {
    let token = |n: usize| (n.wrapping_mul(7919) % engine.vocab()) as u32;
    let prompt: Vec<u32> = (0..options.prefill).map(token).collect();
    let steps: Vec<u32> = (options.prefill..options.prefill + options.decode).map(token).collect();
    engine.reset();
    let began = Instant::now();
    prefill(engine, &prompt)?;
    let prefilled = began.elapsed();
    let began = Instant::now();
    for step in steps {
        engine.last_logits(&[step])?;
    }
    let decoded = began.elapsed();
    Ok(Speed {
        prefill: options.prefill as f64 / prefilled.as_secs_f64(),
        decode: options.decode as f64 / decoded.as_secs_f64(),
    })
}

fn median(speeds: &[Speed], of: impl Fn(&Speed) -> f64) -> f64 {
    let mut values: Vec<f64> = speeds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
