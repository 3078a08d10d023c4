//! One sequence: tokens per second, prompt and continuation apart.

use std::time::Instant;

use fireq::engine::Engine;
use fireq::generate::prefill;
use fireq_runtime::{Ran, Sampling};
use serde::Serialize;
use serde_json::json;

use super::by_kernel::{kernels, table_of};
use crate::cli::{Bench, Device};
use crate::commands::open::open;
use crate::commands::output::{emit, emit_json, progress};
use crate::commands::run::write_trace;
use crate::failure::{Failure, Outcome};

/// Tokens per second of one repetition.
#[derive(Clone, Copy)]
struct Speed {
    prefill: f64,
    decode: f64,
}

/// Seconds that pass before anything is measured.
#[derive(Clone, Copy, Serialize)]
struct StartUp {
    /// Files are read and checked.
    open: f64,
    /// Code is bound, and memory allocated.
    session: f64,
    /// The first token is read, in which memory is used for the first time; weights are known to be sound behind it.
    first_token: f64,
}

/// Prints the medians of all repetitions.
pub fn bench(options: &Bench) -> Outcome {
    let (opened, open) = timed(|| open(&options.model))?;
    let prompt = check(options, opened.context)?;
    let (mut engine, session) = timed(|| opened.engine(prompt + options.decode))?;
    let (_, first_token) = timed(|| Ok(engine.next(&[0], &Sampling::Greedy.draw(0))?))?;
    let start_up = StartUp { open, session, first_token };
    let bar = progress("measuring", options.repeat);
    let mut speeds = vec![];
    for _ in 0..options.repeat {
        speeds.push(measure(&mut engine, prompt, options)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let ran = traced(&mut engine, prompt, options)?;
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
            "start_up": start_up,
            "prefill": { "tokens": prompt, "tokens_per_second": prefill },
            "decode": { "tokens": options.decode, "tokens_per_second": decode },
            "kernels": options.by_kernel.then(|| kernels(&ran)),
        }));
    }
    emit(&format!(
        "{}, {on}, median of {}\n  start-up {:10.1} ms        ({:.1} to open, {:.1} for the session; the first token takes {:.1} ms)\n  prefill  {prefill:10.1} tokens/s  ({} tokens)\n  decode   {decode:10.1} tokens/s  ({} tokens after them)\n",
        opened.name,
        options.repeat,
        1e3 * (open + session),
        1e3 * open,
        1e3 * session,
        1e3 * first_token,
        prompt,
        options.decode,
    ))?;
    if options.by_kernel { emit(&table_of(&kernels(&ran))) } else { Ok(()) }
}

/// What comes out, and how many seconds it took.
fn timed<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<(T, f64)> {
    let began = Instant::now();
    let made = run()?;
    Ok((made, began.elapsed().as_secs_f64()))
}

/// Launches of one repetition more, where they are wanted.
fn traced(engine: &mut Engine, prompt: usize, options: &Bench) -> Outcome<Vec<Ran>> {
    if !options.by_kernel && options.traced.trace.is_none() {
        return Ok(vec![]);
    }
    engine.trace()?;
    measure(engine, prompt, options)?;
    let ran = engine.trace()?;
    if let Some(path) = &options.traced.trace {
        write_trace(path, &ran)?;
    }
    Ok(ran)
}

/// Tokens of the prompt, where all that is to be measured fits.
fn check(options: &Bench, context: usize) -> Outcome<usize> {
    let prompt = match options.prefill.as_deref() {
        None => 128,
        Some([prompt]) => *prompt,
        Some(_) => {
            let hint = "give one number, or measure steps of several sequences with --batch";
            return Err(Failure::new("several prompts are read with --batch").hint(hint));
        }
    };
    if prompt == 0 || options.decode == 0 || options.repeat == 0 {
        return Err(Failure::new("there is nothing to measure").hint("give positive counts"));
    }
    let wanted = prompt.saturating_add(options.decode);
    if wanted > context {
        let message = format!("{wanted} tokens do not fit the context of {context}");
        return Err(Failure::new(message).hint("lower --prefill or --decode"));
    }
    Ok(prompt)
}

fn measure(engine: &mut Engine, prompt: usize, options: &Bench) -> Outcome<Speed> {
    let token = |n: usize| (n.wrapping_mul(7919) % engine.vocab()) as u32;
    let tokens: Vec<u32> = (0..prompt).map(token).collect();
    let steps: Vec<u32> = (prompt..prompt + options.decode).map(token).collect();
    let draw = Sampling::Greedy.draw(0);
    engine.reset();
    let began = Instant::now();
    prefill(engine, &tokens, &draw)?;
    let prefilled = began.elapsed();
    let began = Instant::now();
    for step in steps {
        engine.next(&[step], &draw)?;
    }
    let decoded = began.elapsed();
    Ok(Speed {
        prefill: prompt as f64 / prefilled.as_secs_f64(),
        decode: options.decode as f64 / decoded.as_secs_f64(),
    })
}

fn median(speeds: &[Speed], of: impl Fn(&Speed) -> f64) -> f64 {
    let mut values: Vec<f64> = speeds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
