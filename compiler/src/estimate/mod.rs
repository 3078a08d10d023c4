//! What compiling a model and running the result will take, before it is done.
//!
//! Bytes follow from the plan. Time follows from rates that are measured in the same run, on the machine and with the weights that will be
//! used: nothing is kept from other runs, machines or models. Every number comes as [`Term`]s, each with what it rests on.

mod calibrated;
mod code;
mod memory;
mod sample;
mod weights;

pub use sample::stand_in;

use std::path::Path;

use fireq_ir::plan::{Lowered, print_plan};
use fireq_ir::text::print_graph;
use serde::Serialize;

use crate::build::{BuildOptions, Plans};
use crate::calibrate::CalibrationOptions;
use crate::compile::{kept_files, sizes};
use crate::import::Model;

/// What is to be compiled, and how.
#[derive(Clone, Copy, Debug)]
pub struct Compilation<'a> {
    /// The model behind the passes of its recipe, or behind those of the recipe's structure.
    pub model: &'a Model,
    /// Its plans.
    pub plans: &'a Plans,
    /// The pipeline that looks at data, where that is still to be done.
    pub calibrated: Option<&'a str>,
    /// The data.
    pub calibration: &'a CalibrationOptions,
    /// How code is made, and with how many threads.
    pub build: &'a BuildOptions,
    /// Seconds that this run's passes took.
    pub passes: f64,
}

/// One number of a sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// What it is for.
    pub what: &'static str,
    /// Seconds or bytes.
    pub value: f64,
    /// What it rests on.
    pub basis: String,
}

/// A sum of terms.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// The sum; where some terms share their time, less.
    pub total: f64,
    /// What it is made of.
    pub terms: Vec<Term>,
    /// What is not in it.
    pub without: Vec<String>,
}

/// What compiling, keeping and running will take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Seconds to compile.
    pub seconds: Sum,
    /// The most memory of the process while compiling, in bytes, as systems count it.
    pub compile_memory: Sum,
    /// Bytes of the artifact on the disk.
    pub artifact: Sum,
    /// The most room on the disk while compiling, in bytes: the artifact is made beside its place.
    pub compile_disk: Sum,
    /// Memory to run one sequence of the full context, in bytes, for each target.
    pub run_memory: Vec<(&'static str, Sum)>,
}

/// Estimates by measuring samples: a second or a few; of recipes that look at data more.
pub fn estimate(of: Compilation<'_>) -> Estimate {
    let code = code::measure(&of);
    let calibrated = of.calibrated.map(|pipeline| calibrated::measure(&of, pipeline));
    // Samples of weights leave pages in memory that compiling gives back.
    let compile_memory = memory::compiling(&of, calibrated.is_some());
    let artifact = artifact(&of, &code);
    Estimate {
        seconds: seconds(&of, &code, calibrated.as_ref()),
        compile_memory,
        compile_disk: memory::disk(&of, &artifact),
        artifact,
        run_memory: memory::running(&of),
    }
}

impl Sum {
    fn add(&mut self, what: &'static str, value: f64, basis: impl Into<String>) {
        self.total += value;
        self.terms.push(Term { what, value, basis: basis.into() });
    }
}

fn seconds(of: &Compilation<'_>, code: &code::Code, calibrated: Option<&calibrated::Calibrated>) -> Sum {
    let mut sum = Sum::default();
    sum.add("passes", of.passes, "measured: this run's");
    if let Some(calibrated) = calibrated {
        calibrated.add_to(&mut sum);
    }
    let weights = weights::measure(of);
    let threads = of.build.threads.max(1) as f64;
    // Code for CPUs is made on one thread while the others pack weights.
    let shared = (weights.thread_seconds + code.cpu_seconds) / threads + code.cuda_seconds;
    let longest = shared.max(code.cpu_seconds);
    sum.terms.push(Term { what: "weights", value: weights.thread_seconds / threads, basis: weights.basis });
    sum.terms.extend(code.terms.clone());
    sum.total += longest;
    sum.without.extend(weights.without);
    sum.without.extend(code.without.clone());
    sum.without.push("waiting for the disk while what was written goes to it".into());
    sum
}

fn artifact(of: &Compilation<'_>, code: &code::Code) -> Sum {
    let mut sum = Sum::default();
    let weights: u64 = lowered(of.plans).map(|lowered| sizes(&lowered.plan).weights).sum();
    sum.add("weights", weights as f64, "the plans' types and layouts");
    let texts: usize = lowered(of.plans).map(|lowered| print_plan(&lowered.plan).len()).sum();
    let texts = texts + print_graph(&of.model.graph).len();
    sum.add("graph and plans", texts as f64, "the texts of this run");
    let kept: u64 = kept_files(&of.model.dir).unwrap_or_default().iter().filter_map(|path| size(path)).sum();
    if kept > 0 {
        sum.add("tokenizer", kept as f64, "the model's files, which are copied");
    }
    for (what, bytes, basis) in &code.bytes {
        sum.add(what, *bytes as f64, basis.clone());
    }
    sum.without.push("headers, manifest, report".into());
    sum
}

fn size(path: &Path) -> Option<u64> {
    Some(path.metadata().ok()?.len())
}

fn lowered(plans: &Plans) -> impl Iterator<Item = &Lowered> {
    plans.cpu.iter().chain(plans.cuda.as_ref().map(|(_, lowered)| lowered))
}
