//! `fireq bench`: tokens per second, prompt and continuation apart.

use std::time::Instant;

use fireq::engine::Engine;
use fireq::generate::prefill;
use serde_json::json;

use super::open::open;
use super::output::{emit, emit_json, progress};
use crate::cli::Bench;
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
    let (prefill, decode) = (median(&speeds, |s| s.prefill), median(&speeds, |s| s.decode));
    let threads = opened.threads;
    if options.json {
        return emit_json(&json!({
            "model": opened.name,
            "threads": threads,
            "repeat": options.repeat,
            "prefill": { "tokens": options.prefill, "tokens_per_second": prefill },
            "decode": { "tokens": options.decode, "tokens_per_second": decode },
        }));
    }
    emit(&format!(
        "{}, {threads} threads, median of {}\n  prefill  {prefill:10.1} tokens/s  ({} tokens)\n  decode   {decode:10.1} tokens/s  ({} tokens after them)\n",
        opened.name, options.repeat, options.prefill, options.decode,
    ))
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
