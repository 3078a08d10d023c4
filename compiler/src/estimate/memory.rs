//! How much memory and disk compiling takes, and how much memory the result.

use std::fs;

use fireq_ir::plan::pieces;

use super::weights::{self, Weight};
use super::{Compilation, Sum, lowered};
use crate::compile::sizes;
use crate::import::block_linears;

/// Tokens of a step of `run`, `eval` and `logits`.
const STEP: u64 = 512;

pub(super) fn compiling(of: &Compilation<'_>, calibrated: bool) -> Sum {
    let mut sum = Sum::default();
    match peak() {
        Some(bytes) => {
            sum.add("program, graph and code", bytes as f64, "measured: the most that this run had");
        }
        None => sum.without.push("program, graph and code, which this system does not count".into()),
    }
    // Numbers in f32 before and behind rounding, codes and what is packed.
    let (piece, whole) = largest(of);
    let pieces = (piece * of.build.threads.max(1) as u64 * 9) as f64;
    sum.add(
        "rows at work",
        pieces,
        format!("9 bytes for each of {piece} numbers on each of {} threads", of.build.threads.max(1)),
    );
    if whole > 0 {
        sum.add(
            "a weight that is made whole",
            (whole * 9) as f64,
            format!("9 bytes for each of {whole} numbers"),
        );
    }
    if calibrated {
        data(of, &mut sum);
    }
    sum
}

/// Numbers of the largest piece of weights, and of the largest weight that has only one.
fn largest(of: &Compilation<'_>) -> (u64, u64) {
    let (mut piece, mut whole) = (0, 0);
    let made = weights::all(of).filter(|weight| !weight.graph.operands(weight.value).is_empty());
    for Weight { graph, buffer, value } in made {
        let cols = buffer.ty.shape.cols().fixed().unwrap_or(1);
        let pieces = pieces(graph, value, buffer.storage);
        let rows = pieces.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let most = if pieces.len() == 1 { &mut whole } else { &mut piece };
        *most = (*most).max((rows * cols) as u64);
    }
    (piece, whole)
}

/// What recipes that look at data keep: the stream with and without errors, a block's inputs of linears, and its weights.
fn data(of: &Compilation<'_>, sum: &mut Sum) {
    let config = &of.model.config;
    let sequence = of.calibration.sequence.min(config.context).max(2);
    let tokens = of.calibration.tokens.next_multiple_of(sequence) as f64;
    let stream = 3.0 * 4.0 * tokens * config.hidden as f64;
    sum.add(
        "stream of tokens",
        stream,
        format!("3 times f32, {tokens} tokens of {} channels", config.hidden),
    );
    let linears = block_linears(config);
    let (attention, mlp) = linears.split_at(4);
    let inputs = (config.hidden + config.q_width()).max(config.hidden + config.intermediate);
    sum.add(
        "inputs of linears",
        4.0 * tokens * inputs as f64,
        format!("f32, {tokens} tokens of {inputs} channels"),
    );
    let count = |block: &[[usize; 2]]| block.iter().map(|[rows, cols]| rows * cols).sum::<usize>();
    let block = count(attention).max(count(mlp));
    let widest = linears.iter().map(|[rows, cols]| rows * cols).max().unwrap_or(0);
    sum.add(
        "a block's weights",
        (2 * 2 * block) as f64,
        format!("{block} numbers in bf16, as they were and as they are"),
    );
    sum.add(
        "a weight being quantized",
        (2 * 4 * widest) as f64,
        format!("{widest} numbers in f32, and their errors"),
    );
}

pub(super) fn disk(of: &Compilation<'_>, artifact: &Sum) -> Sum {
    let mut sum = Sum::default();
    sum.add("artifact", artifact.total, "as above; what it replaces stays until it is whole");
    if of.calibrated.is_some() {
        let weights: u64 = lowered(of.plans).map(|lowered| sizes(&lowered.plan).weights).max().unwrap_or(0);
        sum.add(
            "finished blocks",
            weights as f64,
            "their codes, beside the output until all are done; at most all weights",
        );
        let tokens = of.calibration.tokens as f64;
        let streams = 2.0 * 2.0 * 4.0 * tokens * of.model.config.hidden as f64;
        sum.add("streams of tokens", streams, "behind the last two blocks, f32, with and without errors");
    }
    sum
}

pub(super) fn running(of: &Compilation<'_>) -> Vec<(&'static str, Sum)> {
    let context = of.model.config.context as u64;
    let of_plan = |lowered: &fireq_ir::plan::Lowered| {
        let (sizes, mut sum) = (sizes(&lowered.plan), Sum::default());
        sum.add("weights", sizes.weights as f64, "the plan");
        let cache = (sizes.cache_per_token * context) as f64;
        sum.add("cache", cache, format!("{} bytes for each of {context} positions", sizes.cache_per_token));
        let step = context.min(STEP);
        let arena = (sizes.arena_per_token * step) as f64;
        sum.add(
            "a step's values",
            arena,
            format!("{} bytes for each of {step} tokens", sizes.arena_per_token),
        );
        let logits = 4.0 * step as f64 * of.model.config.vocab as f64;
        sum.add(
            "logits",
            logits,
            format!(
                "f32, {step} tokens of {} in the vocabulary, as `logits` and `eval` want them",
                of.model.config.vocab
            ),
        );
        sum
    };
    let cpu = of.plans.cpu.iter().map(|lowered| ("cpu", of_plan(lowered)));
    let cuda = of.plans.cuda.iter().map(|(_, lowered)| {
        let mut sum = of_plan(lowered);
        sum.without.push("workspaces of kernels and the driver, which `fireq bench` says on the GPU".into());
        ("sm_90a", sum)
    });
    cpu.chain(cuda).collect()
}

/// The most memory this process had, in bytes.
fn peak() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
