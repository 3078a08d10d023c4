//! `fireq run`: continues a prompt, printing text as it is generated.

use std::path::Path;

use fireq::generate::{Limits, Timing, generate};
use fireq_runtime::{Ran, Sampler, Sampling, chrome_trace};

use super::batch::batch;
use super::open::open;
use super::output::{emit, write_file};
use crate::cli::Run;
use crate::failure::{Failure, Outcome};

/// Streams the prompt and its continuation to stdout; speed goes to stderr.
pub fn run(options: &Run) -> Outcome {
    let mut sampler = Sampler::new(sampling(options.temperature, options.top_p, options.seed)?);
    let text = match (&options.batch, &options.prompt) {
        (Some(file), _) => return batch(options, file),
        (None, prompt) => prompt.as_deref().unwrap_or_default(),
    };
    let opened = open(&options.model)?;
    let tokens = opened.tokens()?;
    let prompt = tokens.encode(text)?;
    let mut decode = tokens.stream();
    let mut engine = opened.engine(prompt.len().saturating_add(options.n))?;
    if options.traced.trace.is_some() {
        engine.trace()?;
    }
    let limits = Limits { tokens: options.n, eos: opened.eos.clone() };
    emit(text)?;
    let show = |token| decode(token)?.map_or(Ok(()), |text| emit(&text));
    let timing = generate(&mut engine, &prompt, &limits, &mut sampler, show)?;
    emit("\n")?;
    eprintln!("{}", speed(&timing));
    if let Some(path) = &options.traced.trace {
        write_trace(path, &engine.trace()?)?;
    }
    Ok(())
}

/// Writes when launches ran.
pub fn write_trace(path: &Path, ran: &[Ran]) -> Outcome {
    write_file(path, |out| Ok(out.write_all(chrome_trace(ran).as_bytes())?))
}

/// How tokens are picked; numbers out of range are refused.
pub fn sampling(temperature: f32, top_p: f32, seed: u64) -> Outcome<Sampling> {
    let fine = temperature.is_finite() && temperature >= 0.0 && top_p > 0.0 && top_p <= 1.0;
    if !fine {
        let message = format!("temperature {temperature} or top-p {top_p} is out of range");
        return Err(
            Failure::new(message).hint("the temperature is at least 0, top-p is above 0 and at most 1")
        );
    }
    let random = Sampling::Random { temperature, top_p, seed };
    Ok(if temperature == 0.0 { Sampling::Greedy } else { random })
}

fn speed(timing: &Timing) -> String {
    let rate = |tokens: usize, time: std::time::Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    format!(
        "prompt: {} tokens, {:.1} tokens/s; generated: {} tokens, {:.1} tokens/s",
        timing.prompt,
        rate(timing.prompt, timing.prefill),
        timing.generated,
        rate(timing.steps, timing.decode),
    )
}
