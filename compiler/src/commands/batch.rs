//! `fireq run --batch`: continues many prompts, on a GPU as many at once as there is room for.

use std::path::Path;

use fireq::generate::{Limits, generate};
use fireq::tokens::Tokens;
use fireq_runtime::cuda::{Batch, End, Event, Request, Room};
use fireq_runtime::{Sampler, Sampling};
use serde::{Deserialize, Serialize};

use super::open::{Opened, open};
use super::output::{emit, progress};
use super::run::sampling;
use crate::cli::{Device, Run};
use crate::failure::{Failure, Outcome};

/// A line of the file; what it leaves out is as the command's options have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
}

/// A line that is printed.
#[derive(Serialize)]
struct Continued<'a> {
    prompt: &'a str,
    text: String,
    tokens: usize,
    end: &'static str,
}

/// What a request has so far.
#[derive(Clone, Default)]
struct Answer {
    tokens: Vec<u32>,
    end: Option<End>,
}

/// Prints a line of JSON for each prompt, in their order.
pub fn batch(options: &Run, file: &Path) -> Outcome {
    let lines = read(file)?;
    let samplings = lines.iter().map(|line| {
        let [temperature, top_p] =
            [line.temperature.unwrap_or(options.temperature), line.top_p.unwrap_or(options.top_p)];
        sampling(temperature, top_p, line.seed.unwrap_or(options.seed))
    });
    let samplings = samplings.collect::<Outcome<Vec<Sampling>>>()?;
    let opened = open(&options.model)?;
    let tokens = opened.tokens()?;
    let request = |(line, sampling): (&Line, Sampling)| -> Outcome<Request> {
        let (prompt, eos) = (tokens.encode(&line.prompt)?, opened.eos.clone());
        Ok(Request { prompt, tokens: line.tokens.unwrap_or(options.n), eos, sampling })
    };
    let requests = lines.iter().zip(samplings).map(request).collect::<Outcome<Vec<Request>>>()?;
    let prompts: Vec<&str> = lines.iter().map(|line| &*line.prompt).collect();
    let mut printer =
        Printer { prompts, tokens: &tokens, answers: vec![Answer::default(); lines.len()], next: 0 };
    let bar = progress("continuing", lines.len());
    let mut each = |id: usize, event| -> Outcome {
        bar.inc(u64::from(matches!(event, Event::End(_))));
        printer.take(id, event)
    };
    match options.model.device {
        Device::Cpu => one_by_one(&opened, &requests, &mut each)?,
        Device::Cuda => together(&opened, requests, options.sequences, &mut each)?,
    }
    bar.finish_and_clear();
    Ok(())
}

fn read(file: &Path) -> Outcome<Vec<Line>> {
    let at = |n: usize| format!("{}: line {}", file.display(), n + 1);
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::from_error(&e).within(file.display().to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let lines =
        lines.map(|(n, line)| serde_json::from_str(line).map_err(|e| Failure::from_error(&e).within(at(n))));
    let lines = lines.collect::<Outcome<Vec<Line>>>()?;
    if lines.is_empty() {
        let hint = "each line is a JSON object with a `prompt`";
        return Err(Failure::new(format!("{}: there are no prompts", file.display())).hint(hint));
    }
    Ok(lines)
}

fn one_by_one(
    opened: &Opened,
    requests: &[Request],
    each: &mut dyn FnMut(usize, Event) -> Outcome,
) -> Outcome {
    let positions = |request: &Request| request.prompt.len().saturating_add(request.tokens);
    let mut engine = opened.engine(requests.iter().map(positions).max().unwrap_or(0))?;
    for (id, Request { prompt, tokens, eos, sampling }) in requests.iter().enumerate() {
        engine.reset();
        let (mut sampler, limits) = (Sampler::new(*sampling), Limits { tokens: *tokens, eos: eos.clone() });
        let timing =
            generate(&mut engine, prompt, &limits, &mut sampler, |token| each(id, Event::Token(token)))?;
        let full = timing.generated == engine.context() - prompt.len() + 1;
        let end = match timing.generated == *tokens {
            true => End::Length,
            false if full => End::Context,
            false => End::Eos,
        };
        each(id, Event::End(end))?;
    }
    Ok(())
}

/// Tokens of a step: a GPU is busy with as many.
const STEP: usize = 2048;

fn together(
    opened: &Opened,
    requests: Vec<Request>,
    sequences: usize,
    each: &mut dyn FnMut(usize, Event) -> Outcome,
) -> Outcome {
    let sequences = sequences.clamp(1, requests.len().max(1));
    let positions =
        |request: &Request| request.prompt.len().saturating_add(request.tokens).min(opened.context);
    let context = requests.iter().map(positions).max().unwrap_or(0);
    let one = Room::of_one(context, STEP);
    let room = Room {
        tokens: STEP.min(one.tokens * sequences).max(sequences),
        selected: sequences,
        sequences,
        positions: one.positions.max(STEP) + 16 * sequences,
        pages: one.pages * sequences,
        ..one
    };
    let mut batch = Batch::new(opened.executor(room)?);
    for (id, request) in requests.into_iter().enumerate() {
        batch.add(id, request)?;
    }
    while !batch.is_done() {
        batch.step()?.into_iter().try_for_each(|(id, event)| each(id, event))?;
    }
    Ok(())
}

/// Prints what is done and has nothing before it that is not.
struct Printer<'a> {
    prompts: Vec<&'a str>,
    tokens: &'a Tokens,
    answers: Vec<Answer>,
    next: usize,
}

impl Printer<'_> {
    fn take(&mut self, id: usize, event: Event) -> Outcome {
        match event {
            Event::Token(token) => self.answers[id].tokens.push(token),
            Event::End(end) => self.answers[id].end = Some(end),
        }
        while let Some((prompt, answer)) = self.prompts.get(self.next).zip(self.answers.get_mut(self.next)) {
            let Some(end) = answer.end else { break };
            let tokens = std::mem::take(&mut answer.tokens);
            let end = match end {
                End::Eos => "eos",
                End::Length => "length",
                End::Context => "context",
            };
            let text = self.tokens.decode(&tokens)?;
            let line = Continued { prompt, text, tokens: tokens.len(), end };
            let line = serde_json::to_string(&line).map_err(|e| Failure::from_error(&e))?;
            emit(&format!("{line}\n"))?;
            self.next += 1;
        }
        Ok(())
    }
}
