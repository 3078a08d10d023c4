//! Runs cases on an executor and takes times.

use std::time::Instant;

use fireq::work::{Amount, Tokens, Work};
use fireq_runtime::Sampling;
use fireq_runtime::cuda::{Executor, PAGE, Piece};
use serde::Serialize;

use super::by_kernel::{Timed, kernels};
use super::cases::{Case, Chunk, WARM_UP, chunks};
use crate::cli::Bench;
use crate::failure::{Failure, Outcome};

/// What a case took.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Tokens that were read or generated, a second.
    pub tokens_per_second: f64,
    /// Seconds of a step: the median, and what nine of ten do not exceed.
    pub step_seconds: [f64; 2],
    /// Steps of a repetition.
    pub steps: usize,
    /// Seconds of a repetition, the median.
    pub seconds: f64,
    /// What a repetition had to do.
    pub work: Amount,
    /// Times by kernel of a repetition more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Vec<Timed>>,
}

/// An executor, and texts to run.
pub struct Runner<'a> {
    executor: Executor,
    work: Work,
    options: &'a Bench,
    vocab: usize,
    /// The sequences that have keys to decode after, and how many each has.
    filled: Option<(usize, usize)>,
    /// Whether logits were looked at.
    checked: bool,
    /// Pages of a sequence that is decoded.
    stride: usize,
}

impl<'a> Runner<'a> {
    /// Nothing was run.
    pub fn new(executor: Executor, work: Work, options: &'a Bench, vocab: usize) -> Self {
        Runner { executor, work, options, vocab, filled: None, checked: false, stride: 0 }
    }

    /// Measures a case, one of all that `fit`.
    pub fn measure(&mut self, case: Case, fit: &[Case]) -> Outcome<Measured> {
        match case {
            Case::Prefill { sequences, tokens } => self.prefill(sequences, tokens),
            Case::Decode { sequences, after } => {
                self.fill(case, fit)?;
                self.decode(sequences, after)
            }
        }
    }

    /// How long the launches of each kernel take in a repetition; in decoding, in a step.
    pub fn by_kernel(&mut self, case: Case, fit: &[Case]) -> Outcome<Vec<Timed>> {
        if let Case::Decode { .. } = case {
            self.fill(case, fit)?;
        }
        self.executor.trace()?;
        match case {
            Case::Prefill { sequences, tokens } => {
                self.filled = None;
                self.read(&self.steps(sequences, tokens), tokens.div_ceil(PAGE))?;
            }
            Case::Decode { sequences, after } => drop(self.step(after, &self.first(sequences))?),
        }
        Ok(kernels(&self.executor.trace()?))
    }

    fn prefill(&mut self, sequences: usize, tokens: usize) -> Outcome<Measured> {
        let steps = self.steps(sequences, tokens);
        let mut seconds = vec![];
        self.filled = None;
        for _ in 0..=self.options.repeat {
            let began = Instant::now();
            self.read(&steps, tokens.div_ceil(PAGE))?;
            self.executor.synchronize()?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        let mut work = Amount::default();
        for step in &steps {
            work += self.work.step(step.iter().map(|chunk| chunk.tokens));
        }
        // The first is a warm-up.
        let times = sorted(seconds.split_off(1));
        let of_step = |n: usize| times[n] / steps.len() as f64;
        let (median, high) = (times.len() / 2, ninth(times.len()));
        Ok(Measured {
            tokens_per_second: (sequences * tokens) as f64 / times[median],
            step_seconds: [of_step(median), of_step(high)],
            steps: steps.len(),
            seconds: times[median],
            work,
            kernels: None,
        })
    }

    fn decode(&mut self, sequences: usize, after: usize) -> Outcome<Measured> {
        let (mut tokens, mut times, mut work) = (self.first(sequences), vec![], Amount::default());
        for n in 0..WARM_UP + self.options.decode {
            let began = Instant::now();
            tokens = self.step(after + n, &tokens)?;
            if n >= WARM_UP {
                times.push(began.elapsed().as_secs_f64());
                let each = Tokens { past: after + n, tokens: 1, selected: 1 };
                work += self.work.step(vec![each; sequences]);
            }
        }
        let (seconds, steps) = (times.iter().sum::<f64>(), times.len());
        let times = sorted(times);
        Ok(Measured {
            tokens_per_second: (sequences * steps) as f64 / seconds,
            step_seconds: [times[steps / 2], times[ninth(steps)]],
            steps,
            seconds,
            work,
            kernels: None,
        })
    }

    /// Reads prompts for sequences to be decoded: for as many as any of the cases that `fit` has behind as many tokens.
    fn fill(&mut self, case: Case, fit: &[Case]) -> Outcome {
        let alike = |other: &&Case| matches!(other, Case::Decode { after, .. } if *after == case.before());
        let sequences = fit.iter().filter(alike).map(|case| case.sequences()).max().unwrap_or(0);
        let wanted = (sequences.max(case.sequences()), case.before());
        if self.filled != Some(wanted) {
            self.stride = case.context(self.options.decode).div_ceil(PAGE);
            self.read(&self.steps(wanted.0, wanted.1), self.stride)?;
            self.filled = Some(wanted);
        }
        Ok(())
    }

    fn steps(&self, sequences: usize, tokens: usize) -> Vec<Vec<Chunk>> {
        chunks(sequences, tokens, self.options.step_tokens.min(self.executor.room().tokens))
    }

    /// Runs steps that read prompts; each sequence has so many pages. The last token of each gets a successor.
    fn read(&mut self, steps: &[Vec<Chunk>], stride: usize) -> Outcome {
        for step in steps {
            let prompts: Vec<Vec<u32>> = step.iter().map(|chunk| self.prompt(chunk)).collect();
            let pages: Vec<Vec<u32>> = step.iter().map(|chunk| pages(chunk.sequence, stride)).collect();
            let pieces: Vec<Piece<'_>> = step
                .iter()
                .zip(prompts.iter().zip(&pages))
                .map(|(Chunk { tokens: Tokens { past, tokens, selected }, .. }, (ids, pages))| Piece {
                    tokens: ids,
                    past: *past,
                    pages,
                    selected: tokens - selected..*tokens,
                })
                .collect();
            self.run(&pieces)?;
        }
        Ok(())
    }

    /// One token for each sequence behind so many.
    fn step(&mut self, past: usize, tokens: &[u32]) -> Outcome<Vec<u32>> {
        let pages: Vec<Vec<u32>> = (0..tokens.len()).map(|n| pages(n, self.stride)).collect();
        let pieces: Vec<Piece<'_>> = tokens
            .chunks(1)
            .zip(&pages)
            .map(|(token, pages)| Piece { tokens: token, past, pages, selected: 0..1 })
            .collect();
        self.run(&pieces)
    }

    /// Runs a step, and gives the likeliest successors of its selected tokens.
    fn run(&mut self, pieces: &[Piece<'_>]) -> Outcome<Vec<u32>> {
        let selected = pieces.iter().map(|piece| piece.selected.len()).sum();
        if selected == 0 {
            self.executor.run(pieces)?;
            return Ok(vec![]);
        }
        let chosen = self.executor.choose(pieces, &vec![Sampling::Greedy.draw(0); selected])?;
        if !self.checked {
            check(&self.executor.logits()?)?;
            self.checked = true;
        }
        Ok(chosen)
    }

    /// Tokens of a part of a prompt, which is another for each sequence.
    fn prompt(&self, chunk: &Chunk) -> Vec<u32> {
        let Tokens { past, tokens, .. } = chunk.tokens;
        (past..past + tokens).map(|at| token(chunk.sequence, at, self.vocab)).collect()
    }

    /// A token for each sequence to begin with.
    fn first(&self, sequences: usize) -> Vec<u32> {
        (0..sequences).map(|n| token(n, usize::MAX, self.vocab)).collect()
    }
}

/// Any token, the same each time.
fn token(sequence: usize, at: usize, vocab: usize) -> u32 {
    let mixed = (sequence as u64) << 32 ^ at as u64;
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 32) % vocab.max(1) as u64) as u32
}

fn pages(sequence: usize, stride: usize) -> Vec<u32> {
    (sequence * stride..(sequence + 1) * stride).map(|page| page as u32).collect()
}

/// Logits of weights that make sense are numbers, and not all the same.
fn check(logits: &[f32]) -> Outcome {
    let wrong = match logits.iter().position(|x| !x.is_finite()) {
        Some(at) => format!("logit {at} is {}", logits[at]),
        None if logits.iter().all(|x| *x == logits[0]) => "all logits are equal".into(),
        None => return Ok(()),
    };
    let hint = "`fireq logits --compare-ops` finds the launch that differs from the interpreter";
    Err(Failure::new(format!("what runs is wrong: {wrong}")).hint(hint))
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_by(f64::total_cmp);
    times
}

/// Where the time is that nine of ten do not exceed.
fn ninth(count: usize) -> usize {
    (count * 9).div_ceil(10).max(1) - 1
}
