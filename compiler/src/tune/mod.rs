//! Products of an artifact on a GPU: every method that a cost model finds promising is timed, and the quickest kept.

mod operands;

use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::linear::units;
use fireq_codegen::cuda::nvrtc::{Compiled, NvrtcFailure};
use fireq_kernels::LaunchShape;
use fireq_kernels::cuda::include::IncludeError;
use fireq_kernels::cuda::tuning::{Method, Tuning, Winner, candidates};
use fireq_kernels::cuda::{Linear, Output, Unit, Unsupported, cost_fp8};
use fireq_runtime::cuda::{CudaError, Function, Gpu};
use rayon::prelude::*;
use thiserror::Error;

use operands::Operands;

/// The file of an artifact that holds its measurements.
pub const FILE: &str = "tuning.json";

/// What is tried.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// Numbers of tokens at which ranges end; the last stands for more, too.
    pub tokens: Vec<usize>,
    /// Methods for each product and number of tokens.
    pub candidates: usize,
    /// Launches that are timed; the median counts.
    pub launches: usize,
    /// Where compiled kernels are kept.
    pub cache: Cache,
}

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum TuneError {
    /// The GPU.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The compiler of kernels.
    #[error(transparent)]
    Nvrtc(#[from] NvrtcFailure),
    /// A building block is missing.
    #[error(transparent)]
    Include(#[from] IncludeError),
    /// A method that there is no kernel for.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A kernel is wrong.
    #[error(
        "{product}, {tokens} tokens: {method:?} gives something else than the others: relative error {error:.1e}"
    )]
    Wrong {
        /// The product.
        product: String,
        /// Its tokens.
        tokens: usize,
        /// The method.
        method: Method,
        /// How far it is off.
        error: f64,
    },
}

/// The numbers of tokens at which the cost models look.
pub fn token_counts() -> Vec<usize> {
    cost_fp8::ends().chain([cost_fp8::VERY_MANY]).collect()
}

/// Measures these products. `progress` is told how many of how many measurements are done.
pub fn tune(
    gpu: &Gpu,
    products: &[Linear],
    options: &TuneOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Tuning, TuneError> {
    let mut tuning = Tuning { device: gpu.facts()?.name, ..Tuning::default() };
    let counts = options.tokens.len();
    for (n, linear) in products.iter().enumerate() {
        let mut winners = vec![];
        for (m, tokens) in options.tokens.iter().enumerate() {
            winners.push(winner(gpu, linear, *tokens, options)?);
            progress(n * counts + m + 1, products.len() * counts);
        }
        tuning.products.insert(linear.to_string(), winners);
    }
    Ok(tuning)
}

/// The quickest method for so many tokens. What the models choose is the first candidate.
fn winner(gpu: &Gpu, linear: &Linear, tokens: usize, options: &TuneOptions) -> Result<Winner, TuneError> {
    let methods = candidates(linear, tokens, options.candidates);
    let kernels = methods.iter().map(|m| units(linear, m, String::new())).collect::<Result<Vec<_>, _>>()?;
    let compiled = compile(&kernels, &options.cache)?;
    let operands = Operands::new(gpu, linear, tokens)?;
    let (mut seconds, mut expected) = (vec![], None);
    for ((method, units), compiled) in methods.iter().zip(&kernels).zip(&compiled) {
        let loaded = Loaded::new(gpu, units, compiled, tokens, operands.params(method)?)?;
        let times = gpu.times(1, options.launches.max(1), |_| loaded.launch())?;
        seconds.push(times[times.len() / 2]);
        agrees(linear, tokens, *method, &operands, &mut expected)?;
    }
    let quickest = (0..methods.len()).min_by(|a, b| seconds[*a].total_cmp(&seconds[*b]));
    let quickest = quickest.ok_or_else(|| Unsupported(format!("{linear}: no kernel fits")))?;
    Ok(Winner {
        tokens,
        method: methods[quickest],
        seconds: seconds[quickest],
        model: seconds[0],
        tried: methods.len(),
    })
}

/// The code of the kernels of each method; what is not in the cache is compiled, on all cores.
fn compile(kernels: &[Vec<Unit>], cache: &Cache) -> Result<Vec<Vec<Compiled>>, TuneError> {
    let one = |unit: &Unit| Ok(cache.compile(&unit.name, &unit.source()?)?);
    kernels.par_iter().map(|units| units.iter().map(one).collect()).collect()
}

/// Outputs that are compared; beyond, reading them takes longer than the product.
const COMPARED: usize = 64 << 20;
/// The relative error that another order of sums, or other promotions of short ones, may make.
const TOLERANCE: f64 = 1e-2;

/// Compares a method's output with that of the first.
fn agrees(
    linear: &Linear,
    tokens: usize,
    method: Method,
    operands: &Operands,
    expected: &mut Option<Vec<f32>>,
) -> Result<(), TuneError> {
    if operands.output_bytes() > COMPARED {
        return Ok(());
    }
    let found = floats(&operands.output()?, linear.output);
    let Some(expected) = expected else {
        *expected = Some(found);
        return Ok(());
    };
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = found.iter().zip(&*expected).map(|(a, b)| square(a - b)).sum();
    let error = (difference / expected.iter().map(|x| square(*x)).sum::<f64>()).sqrt();
    if error <= TOLERANCE {
        return Ok(());
    }
    Err(TuneError::Wrong { product: linear.to_string(), tokens, method, error })
}

fn floats(bytes: &[u8], output: Output) -> Vec<f32> {
    match output {
        Output::Bf16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
            .collect(),
        _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

/// The kernels of a method on a GPU, with what they take.
struct Loaded(Vec<(Function, LaunchShape, Vec<u8>)>);

impl Loaded {
    fn new(
        gpu: &Gpu,
        units: &[Unit],
        compiled: &[Compiled],
        tokens: usize,
        params: Vec<Vec<u8>>,
    ) -> Result<Self, CudaError> {
        let load = |((unit, compiled), params): ((&Unit, &Compiled), Vec<u8>)| {
            let function = gpu.load(&compiled.cubin)?.function(&unit.name)?;
            Ok((function, unit.launch(tokens, 0), params))
        };
        units.iter().zip(compiled).zip(params).map(load).collect::<Result<_, _>>().map(Loaded)
    }

    fn launch(&self) -> Result<(), CudaError> {
        self.0.iter().try_for_each(|(function, shape, params)| {
            // SAFETY: parameters are those of the unit, and hold addresses of operands of the product's sizes, which outlive
            // the measurement.
            unsafe { function.launch(shape, params) }
        })
    }
}
