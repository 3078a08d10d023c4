//! Steps of several sequences on a GPU: what fits is measured, and what does not is said.

use fireq::work::Work;
use fireq_runtime::cuda::{Executor, Facts, Footprint, Gpu, Needs, Room};
use fireq_runtime::{Artifact, RuntimeError};

use super::cases::Case;
use super::machine::{Peak, peak};
use super::print;
use super::runner::{Measured, Runner};
use crate::cli::Bench;
use crate::commands::open::set_threads;
use crate::commands::output::progress;
use crate::failure::{Failure, Outcome};

/// What decodes at once where nothing is said.
const BATCHES: [usize; 4] = [1, 16, 64, 128];

/// All that is reported.
pub struct Report {
    /// The model's name and its recipe.
    pub model: [String; 2],
    /// Whether its weights were made at random, and from which seed.
    pub seed: Option<u64>,
    /// The GPU.
    pub gpu: Facts,
    /// What it can do at most, if that is known.
    pub peak: Option<Peak>,
    /// What the model takes of its memory for all cases, and what was free.
    pub memory: (Footprint, usize),
    /// What was measured, or why not, in the order of the options.
    pub cases: Vec<(Case, Result<Measured, String>)>,
}

/// Measures and prints.
pub fn bench(options: &Bench) -> Outcome {
    set_threads(options.model.threads)?;
    let cases = Case::all(options, &BATCHES)?;
    let (artifact, _temporary) = match &options.shape {
        Some(shape) => {
            super::shape::compile(options, shape).map(|(artifact, held)| (artifact, Some(held)))?
        }
        None => (Artifact::open_for_gpu(options.model.path())?, None),
    };
    let gpu = Gpu::open(0).map_err(RuntimeError::from)?;
    let facts = gpu.facts().map_err(RuntimeError::from)?;
    let peak = peak(options.peak.as_deref(), &facts)?;
    let weights = match options.random_weights {
        Some(seed) => artifact.random_cuda_weights(seed)?,
        None => artifact.cuda_weights()?,
    };
    let needs = Needs::of(&artifact)?;
    let free = gpu.free_memory().map_err(RuntimeError::from)?;
    let (room, verdicts) = fitting(options, &artifact, &needs, &cases, free)?;
    let executor = Executor::with_weights(&gpu, &artifact, &weights, room)?;
    let seed = options.random_weights;
    let mut runner = Runner::new(executor, Work::of(&needs.plan), options, artifact.manifest.model.vocab);
    let measured = measure(&mut runner, &cases, verdicts, options)?;
    print::print(
        &Report {
            model: [artifact.manifest.name.clone(), artifact.manifest.recipe.clone()],
            seed,
            gpu: facts,
            peak,
            memory: (needs.footprint(room), free),
            cases: cases.into_iter().zip(measured).collect(),
        },
        options,
    )
}

/// Whether a case fits, or why not.
type Verdict = Result<(), String>;

/// The room for all cases that fit, those that need least first; there is at least one.
fn fitting(
    options: &Bench,
    artifact: &Artifact,
    needs: &Needs,
    cases: &[Case],
    free: usize,
) -> Outcome<(Room, Vec<Verdict>)> {
    let context = artifact.manifest.model.context;
    // The driver keeps some for itself, for code and for rounding.
    let free = free - free / 64;
    let room = |case: &Case| case.room(options.decode, options.step_tokens);
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by_key(|n| needs.footprint(room(&cases[*n])).total());
    let (mut all, mut verdicts) = (None::<Room>, vec![Ok(()); cases.len()]);
    for n in order {
        let (case, wanted) = (cases[n], room(&cases[n]));
        let with = all.map_or(wanted, |all| all.union(wanted));
        let footprint = needs.footprint(with);
        if case.context(options.decode) > context {
            verdicts[n] = Err(format!("{} positions, the model has {context}", case.context(options.decode)));
        } else if footprint.total() > free {
            verdicts[n] = Err(format!("{} bytes of memory, {free} are free", footprint.total()));
        } else {
            all = Some(with);
        }
    }
    if let Some(all) = all {
        return Ok((all, verdicts));
    }
    let least = cases.iter().map(|case| needs.footprint(room(case))).min_by_key(Footprint::total);
    if let Some(wanted) = least.filter(|least| least.total() > free) {
        return Err(RuntimeError::GpuMemory { wanted, free }.into());
    }
    let message = format!("nothing fits the context of {context}");
    Err(Failure::new(message).hint("lower --prefill, --after or --decode"))
}

/// Measures what fits, and then, if asked to, each case once more by kernel.
fn measure(
    runner: &mut Runner<'_>,
    cases: &[Case],
    verdicts: Vec<Verdict>,
    options: &Bench,
) -> Outcome<Vec<Result<Measured, String>>> {
    let fits: Vec<Case> =
        cases.iter().zip(&verdicts).filter(|(_, fits)| fits.is_ok()).map(|(c, _)| *c).collect();
    let bar = progress("measuring", fits.len());
    let mut results = vec![];
    for (case, verdict) in cases.iter().zip(verdicts) {
        results.push(match verdict {
            Ok(()) => Ok(runner.measure(*case, &fits)?),
            Err(reason) => Err(reason),
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    if options.by_kernel {
        // Prompts last: they overwrite what decoding reads.
        for (case, result) in cases.iter().zip(&mut results).rev() {
            if let Ok(measured) = result {
                measured.kernels = Some(runner.by_kernel(*case, &fits)?);
            }
        }
    }
    Ok(results)
}
