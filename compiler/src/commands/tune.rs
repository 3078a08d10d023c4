//! `fireq tune`: which kernels an artifact's products are quickest with, measured on the GPU of this machine.

use fireq::compile::CompileError;
use fireq::tune::{FILE, TuneOptions, token_counts};
use fireq_codegen::artifact::{ArtifactError, recode};
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::linear::products;
use fireq_codegen::cuda::nvrtc::{NvrtcFailure, version};
use fireq_codegen::cuda::toolkit::HOW_TO_INSTALL;
use fireq_kernels::cuda::tuning::{Tuning, Winner};
use fireq_runtime::Artifact;
use fireq_runtime::cuda::Gpu;

use super::output::{emit, progress, table};
use crate::cli::Tune;
use crate::failure::{Failure, Outcome};

/// Measures, and replaces the artifact's GPU code; everything else of it stays.
pub fn tune(options: &Tune) -> Outcome {
    let rising =
        |tokens: &[usize]| tokens.first().is_some_and(|n| *n > 0) && tokens.is_sorted_by(|a, b| a < b);
    let tokens = options.tokens.clone().unwrap_or_else(token_counts);
    if !rising(&tokens) || options.candidates == 0 || options.launches == 0 {
        return Err(Failure::new("there is nothing to measure")
            .hint("--tokens are rising numbers from 1 on, --candidates and --launches at least 1"));
    }
    let artifact = Artifact::describe(&options.artifact)?;
    if artifact.manifest.cuda.is_none() {
        let message = format!("`{}` has no code for GPUs", options.artifact.display());
        return Err(Failure::new(message).hint("compile the model with --target sm_90a"));
    }
    let plan = artifact.cuda_plan()?;
    version().map_err(|e| match e {
        NvrtcFailure::Missing => Failure::from_error(&e).hint(HOW_TO_INSTALL),
        _ => Failure::from_error(&e),
    })?;
    let gpu = Gpu::open(0).map_err(|e| {
        Failure::from_error(&e)
            .hint("fireq tune measures on a Hopper GPU; without one the cost models decide")
    })?;
    let cache = Cache::of_user();
    let tune = TuneOptions {
        tokens,
        candidates: options.candidates,
        launches: options.launches,
        cache: cache.clone(),
    };
    let bar = progress("products", 0);
    let tuning = fireq::tune::tune(&gpu, &products(&plan), &tune, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    recode(&artifact.dir, &artifact.manifest, &[(FILE, tuning.to_json())], |dir| {
        fireq_codegen::cuda::generate(&plan, &tuning, &cache, dir)
            .map_err(|e| ArtifactError::Code(Box::new(e)))
    })
    .map_err(CompileError::from)?;
    emit(&if options.json { tuning.to_json() } else { text(&tuning) })
}

/// A line for each product and number of tokens.
fn text(tuning: &Tuning) -> String {
    let micro = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
    let head = ["tokens", "quickest", "the model's", "gain"].map(String::from);
    let row = |winner: &Winner| {
        let gain = format!("{:.2}", winner.model / winner.seconds);
        [winner.tokens.to_string(), micro(winner.seconds), micro(winner.model), gain]
    };
    let mut text = format!("on {}\n", tuning.device);
    for (product, winners) in &tuning.products {
        let rows: Vec<[String; 4]> = std::iter::once(head.clone()).chain(winners.iter().map(row)).collect();
        text += &format!("{product}\n{}", table(&rows, 4));
    }
    text
}
