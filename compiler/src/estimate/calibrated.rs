//! How long recipes that look at data take: the recipe runs on two small models of one layer each, of the model's kind, with random weights and
//! tokens; what that takes grows with the operations of products, and with the numbers of weights and of what compensates their errors.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fireq_ir::{DType, Graph};
use fireq_passes::random::Tensors;
use fireq_passes::{
    COMPARED, COMPARED_ROWS, COMPENSATED, Calibration, Prepared, RunError, Runner, pipeline_with,
};

use super::{Compilation, Sum, sample};
use crate::calibrate::{runner, sequences};
use crate::import::{ImportOptions, ModelConfig, block_linears, shape_of};

/// What was measured, scaled to the model.
pub(super) struct Calibrated {
    /// Seconds of runs on data.
    runs: f64,
    /// Seconds of making code for these.
    code: f64,
    /// Seconds of all else: statistics, search, codes.
    codes: f64,
    basis: String,
    failed: Option<String>,
}

impl Calibrated {
    pub fn add_to(&self, sum: &mut Sum) {
        if let Some(reason) = &self.failed {
            return sum.without.push(format!("calibration, whose sample failed: {reason}"));
        }
        sum.add("runs on data", self.runs, format!("{}; scaled by operations of products", self.basis));
        sum.add("code for them", self.code, "measured: one layer's, which all layers share");
        sum.add(
            "scales and codes",
            self.codes,
            "the rest of the same; scaled by weights and what compensates their errors",
        );
    }
}

/// Sequences of a sample: more than candidates are compared on, so that those runs are told from those on all data.
const SEQUENCES: usize = COMPARED + 1;

/// Their tokens at most.
const SEQUENCE: usize = 128;

/// Channels of the larger sample at most; the other has half.
const WIDEST: usize = 256;

pub(super) fn measure(of: &Compilation<'_>, pipeline: &str) -> Calibrated {
    let config = &of.model.config;
    let width = config.hidden.min(WIDEST);
    let sequence = of.calibration.sequence.min(config.context).clamp(2, SEQUENCE);
    let samples = [width / 2, width].map(|width| narrow(config, width.max(1), sequence));
    let runs: Result<Vec<Times>, String> =
        samples.iter().map(|config| run(config, pipeline, sequence, of.calibration.threads)).collect();
    match runs {
        Ok(times) => scaled(of, &samples, &times, sequence),
        Err(reason) => {
            Calibrated { runs: 0.0, code: 0.0, codes: 0.0, basis: String::new(), failed: Some(reason) }
        }
    }
}

/// The model with one layer and fewer channels, of about the same proportions.
fn narrow(config: &ModelConfig, hidden: usize, sequence: usize) -> ModelConfig {
    let share = |n: usize| (n * hidden / config.hidden).max(1);
    let kv_heads = share(config.kv_heads);
    ModelConfig {
        layers: 1,
        vocab: config.vocab.min(256),
        hidden,
        intermediate: share(config.intermediate),
        kv_heads,
        heads: kv_heads * (config.heads / config.kv_heads),
        context: sequence,
        ..config.clone()
    }
}

/// Seconds of a run.
#[derive(Clone, Copy)]
struct Times {
    code: f64,
    /// Of runs on all data, and of those on a few sequences.
    runs: [f64; 2],
    rest: f64,
}

fn run(config: &ModelConfig, pipeline: &str, sequence: usize, threads: usize) -> Result<Times, String> {
    let model = shape_of(config.clone(), Path::new("."), ImportOptions::default(), DType::BF16, false);
    let mut graph = model.map_err(|e| e.to_string())?.graph;
    sample::fill(&mut graph);
    let ids: Vec<u32> = (0..(SEQUENCES * sequence) as u32).map(|n| n * 37 % config.vocab as u32).collect();
    let timed = Timed { inner: runner(threads), graphs: Arc::default() };
    let graphs = timed.graphs.clone();
    let load = move || Ok(sequences(None, &ids, SEQUENCES, sequence));
    let pipeline = pipeline_with(pipeline, &Arc::new(Calibration::new(Arc::new(timed), load)));
    let began = Instant::now();
    pipeline.map_err(|e| e.to_string())?.run(&mut graph).map_err(|e| e.to_string())?;
    let total = began.elapsed().as_secs_f64();
    let graphs = graphs.lock().unwrap_or_else(PoisonError::into_inner);
    let sum = |of: &dyn Fn(&Ran) -> f64| graphs.iter().map(of).sum::<f64>();
    let code = sum(&|ran| ran.prepared);
    let [all, few] = [true, false]
        .map(|all| sum(&|ran| if (ran.sequences >= SEQUENCES) == all { ran.seconds } else { 0.0 }));
    Ok(Times { code, runs: [all, few], rest: (total - code - all - few).max(0.0) })
}

/// A graph that was prepared and run.
struct Ran {
    /// Seconds to prepare it.
    prepared: f64,
    /// How often it ran.
    sequences: usize,
    /// Seconds of all runs.
    seconds: f64,
}

/// A runner that keeps the time.
struct Timed {
    inner: Arc<dyn Runner>,
    graphs: Arc<Mutex<Vec<Ran>>>,
}

impl Runner for Timed {
    fn prepare<'a>(&self, graph: &'a Graph, tokens: usize) -> Result<Prepared<'a>, RunError> {
        let (began, graphs) = (Instant::now(), self.graphs.clone());
        let mut run = self.inner.prepare(graph, tokens)?;
        let prepared = began.elapsed().as_secs_f64();
        let at = {
            let mut graphs = graphs.lock().unwrap_or_else(PoisonError::into_inner);
            graphs.push(Ran { prepared, sequences: 0, seconds: 0.0 });
            graphs.len() - 1
        };
        Ok(Box::new(move |inputs: &Tensors| {
            let began = Instant::now();
            let found = run(inputs);
            let ran = &mut graphs.lock().unwrap_or_else(PoisonError::into_inner)[at];
            ran.sequences += 1;
            ran.seconds += began.elapsed().as_secs_f64();
            found
        }))
    }
}

fn scaled(of: &Compilation<'_>, samples: &[ModelConfig; 2], times: &[Times], sampled: usize) -> Calibrated {
    let config = &of.model.config;
    let sequence = of.calibration.sequence.min(config.context).max(2);
    let tokens = of.calibration.tokens.next_multiple_of(sequence);
    let few = COMPARED.min(tokens / sequence) * sequence;
    let all = operations(config, usize::MAX, tokens, sequence)
        / operations(&samples[1], usize::MAX, SEQUENCES * sampled, sampled);
    let compared = operations(config, COMPARED_ROWS, few, sequence)
        / operations(&samples[1], COMPARED_ROWS, COMPARED * sampled, sampled);
    let small = [0, 1].map(|n| {
        (numbers(&samples[n], usize::MAX), compensated(&samples[n], SEQUENCES * sampled), times[n].rest)
    });
    let [each, grown] = solve(small);
    Calibrated {
        runs: times[1].runs[0] * all + times[1].runs[1] * compared,
        code: times[1].code,
        codes: each * numbers(config, usize::MAX) + grown * compensated(config, tokens),
        basis: format!(
            "one layer of {} and of {} channels on {} tokens, measured in this run, for {} layers of {} on {tokens}",
            samples[0].hidden,
            samples[1].hidden,
            SEQUENCES * sampled,
            config.layers,
            config.hidden
        ),
        failed: None,
    }
}

/// Operations of products, each of so many rows of its weight at most, and of causal attention.
fn operations(config: &ModelConfig, most: usize, tokens: usize, sequence: usize) -> f64 {
    let attention = (config.layers * 2 * sequence * config.q_width()) as f64;
    tokens as f64 * (2.0 * numbers(config, most) + attention)
}

/// Numbers in weights of blocks, in so many rows of each at most.
fn numbers(config: &ModelConfig, most: usize) -> f64 {
    let block: f64 = block_linears(config).iter().map(|[rows, cols]| (rows.min(&most) * cols) as f64).sum();
    block * config.layers as f64
}

/// What compensation of errors goes through: for every row of weights and token of data, each column with those in its reach.
fn compensated(config: &ModelConfig, tokens: usize) -> f64 {
    let of = |[rows, cols]: &[usize; 2]| ((rows + tokens) * cols) as f64 * *cols.min(&COMPENSATED) as f64;
    block_linears(config).iter().map(of).sum::<f64>() * config.layers as f64
}

/// `a` and `b`, both not negative, that `a·x + b·y = z` holds with for both samples, or for the second with one of them.
fn solve([(x0, y0, z0), (x1, y1, z1)]: [(f64, f64, f64); 2]) -> [f64; 2] {
    let determinant = x0 * y1 - x1 * y0;
    let (a, b) = ((z0 * y1 - z1 * y0) / determinant, (x0 * z1 - x1 * z0) / determinant);
    match (a > 0.0, b > 0.0) {
        (true, true) => [a, b],
        (true, _) => [z1 / x1, 0.0],
        _ => [0.0, z1 / y1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_give_what_each_number_and_each_compensation_take() {
        let time = |(x, y): (f64, f64)| (x, y, 3.0 * x + 2.0 * y);
        let near = |[a, b]: [f64; 2], [c, d]: [f64; 2]| (a - c).abs() + (b - d).abs() < 1e-9;
        assert!(near(solve([time((1.0, 1.0)), time((4.0, 16.0))]), [3.0, 2.0]));
        assert!(near(solve([(1.0, 1.0, 5.0), (4.0, 16.0, 20.0)]), [5.0, 0.0]));
        assert!(near(solve([(1.0, 1.0, 0.1), (4.0, 16.0, 16.0)]), [0.0, 1.0]));
    }
}
