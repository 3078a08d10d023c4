//! What short accumulators cost a product, and what promoting their sums to FP32 registers wins back.
//!
//! The simulator's tensor cores keep 13 bits below the leading one here, as Hopper's are reported to. How much that takes
//! depends on the signs of products: where they are random, what is cut off is, too; where sums grow, small products are
//! cut off against them, always in the same direction.
//! `cargo test -p fireq-tests --test gpu_kernels promotion -- --nocapture` prints the table.

use std::f64::consts::PI;

use fireq_ir::quant::Quantized;
use fireq_ir::{Fit, Format};
use fireq_kernels::cuda::cost::promotion;
use fireq_kernels::cuda::cost_fp8;
use fireq_kernels::cuda::{Linear, LinearConfig, LinearFp8, LinearFp8Config, Schedule, params};
use fireq_kernels::records::records;
use fireq_sim::Accumulator;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::device::{Device, device};
use super::linear_fp8::{Product, workspace};

const CHANNELS: usize = 64;
const TOKENS: usize = 8;
/// One channel in so many is an outlier, this many times as large.
const OUTLIERS: (usize, f64) = (512, 20.0);
const SHORT: Accumulator = Accumulator::Truncated { fraction_bits: 13 };
/// Steps between promotions, the cheapest first.
const INTERVALS: [usize; 3] = [0, 4, 1];

/// Rows of normal numbers; channels that `factor` says are larger.
fn normal(rows: usize, cols: usize, seed: u64, factor: impl Fn(usize) -> f64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut one = |i: usize| {
        let (radius, angle): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
        (factor(i % cols) * (-2.0 * radius.ln()).sqrt() * (2.0 * PI * angle).cos()) as f32
    };
    (0..rows * cols).map(&mut one).collect()
}

/// Signs of products.
#[derive(Clone, Copy, Debug)]
enum Signs {
    /// Activations and weights are symmetric about zero.
    Random,
    /// No activation is negative, and weights lean to one side by a tenth of their deviation.
    Leaning,
}

/// Operands as they were before quantization, and as they are behind it.
struct Operands {
    exact: [Vec<f32>; 2],
    x: Quantized,
    weight: Quantized,
}

impl Operands {
    fn new(cols: usize, signs: Signs) -> Self {
        let outlier = |channel: usize| if channel % OUTLIERS.0 == 37 { OUTLIERS.1 } else { 1.0 };
        let leaning = matches!(signs, Signs::Leaning);
        let x = normal(TOKENS, cols, 1, outlier);
        let x: Vec<f32> = x.into_iter().map(|x| if leaning { x.abs() } else { x }).collect();
        let weight = normal(CHANNELS, cols, 2, |_| 0.02);
        let mean = if leaning { 0.002 } else { 0.0 };
        let weight: Vec<f32> = weight.into_iter().map(|weight| weight + mean).collect();
        Operands {
            x: Quantized::from_rows(&x, cols, &Format::activation(), Fit::Absmax),
            weight: Quantized::from_rows(&weight, cols, &Format::weight(128), Fit::Signed),
            exact: [x, weight],
        }
    }

    /// The product of the numbers before quantization.
    fn unquantized(&self) -> Vec<f64> {
        let [x, weight] = &self.exact;
        let rows = |numbers: &[f32]| -> Vec<Vec<f64>> {
            numbers.chunks(self.x.cols).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
        };
        product(&rows(x), &rows(weight))
    }

    /// The contract's product, without a rounding behind the operands' own.
    fn contract(&self) -> Vec<f64> {
        let rows = |matrix: &Quantized| -> Vec<Vec<f64>> {
            let row = |row: usize| {
                let factor = f64::from(matrix.row_factor(row));
                matrix.mainloop_row(row).iter().map(|x| f64::from(*x) * factor).collect()
            };
            (0..matrix.rows()).map(row).collect()
        };
        product(&rows(&self.x), &rows(&self.weight))
    }

    /// What the kernel computes with short accumulators.
    fn kernel(&self, promotion: usize) -> Vec<f64> {
        let mut gpu = device().expect("asked before");
        let linear = Linear::plain(CHANNELS, self.x.cols, 128);
        let config = LinearConfig {
            tokens: TOKENS,
            warpgroups: 1,
            stages: 3,
            steps: 2,
            split: 1,
            cluster: 1,
            promotion,
            band: 0,
        };
        let codes: Vec<u8> = self.x.codes.iter().map(|code| *code as u8).collect();
        let codes = gpu.put("x codes", &codes);
        let out = gpu.space("out", 4 * TOKENS * CHANNELS);
        let params = params::Linear {
            x: Device::map(codes, &linear.x(&config, TOKENS)),
            records: gpu.put("records", &records(&self.weight).unwrap()),
            token_scales: gpu.put_f32("token scales", &self.x.scales[0]),
            channel_scales: gpu.put_f32("channel scales", &self.weight.scales[1]),
            addend: 0,
            out,
            tokens: TOKENS as u32,
            channels: CHANNELS as u32,
            steps: linear.steps() as u32,
        };
        gpu.launch_with(SHORT, &linear.unit(&config, "a test".into()).unwrap(), TOKENS, &params);
        gpu.f32s(out, TOKENS * CHANNELS).into_iter().map(f64::from).collect()
    }

    /// As [`Operands::kernel`], with the weight decoded before.
    fn decoded(&self, promotion: usize) -> Vec<f64> {
        let mut gpu = device().expect("asked before");
        let linear = Linear::plain(CHANNELS, self.x.cols, 128);
        let (tokens, schedule) = (128, Schedule::Alternately);
        let config = LinearFp8Config { tokens, stages: 3, cluster: 1, promotion, schedule };
        let product = Product { linear, config, tokens: TOKENS, ctas: 1, band: 1 };
        let codes: Vec<u8> = self.x.codes.iter().map(|code| *code as u8).collect();
        let x = gpu.put("x codes", &codes);
        let weight = gpu.put("decoded weight", &workspace(&linear, &self.weight));
        let out = gpu.space("out", 4 * TOKENS * CHANNELS);
        let decoded = LinearFp8::from(linear);
        let params = params::LinearFp8 {
            x: Device::map(x, &decoded.x(&config, TOKENS)),
            weight: Device::map(weight, &decoded.weight(&config)),
            token_scales: gpu.put_f32("token scales", &self.x.scales[0]),
            channel_scales: gpu.put_f32("channel scales", &self.weight.scales[1]),
            addend: 0,
            out,
            tokens: TOKENS as u32,
            channels: CHANNELS as u32,
            steps: linear.steps() as u32,
            band: 1,
        };
        gpu.launch_with(SHORT, &product.unit(), TOKENS, &params);
        gpu.f32s(out, TOKENS * CHANNELS).into_iter().map(f64::from).collect()
    }
}

/// Rows of `x` times rows of `weight`.
fn product(x: &[Vec<f64>], weight: &[Vec<f64>]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    x.iter().flat_map(|x| weight.iter().map(move |w| dot(x, w))).collect()
}

/// The relative L2 error.
fn error(wanted: &[f64], found: &[f64]) -> f64 {
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let off = squares(&mut wanted.iter().zip(found).map(|(wanted, found)| wanted - found));
    (off / squares(&mut wanted.iter().copied())).sqrt()
}

/// The errors of all intervals, and a tenth of the quantization's.
fn errors(cols: usize, signs: Signs) -> ([f64; 3], f64) {
    let operands = Operands::new(cols, signs);
    let contract = operands.contract();
    let quantization = error(&operands.unquantized(), &contract);
    let errors = INTERVALS.map(|promotion| error(&contract, &operands.kernel(promotion)));
    let percent = errors.map(|e| format!("{:8.4} %", 100.0 * e)).join("  ");
    eprintln!("{cols:7}  {:7} {percent} {:12.2} %", format!("{signs:?}"), 100.0 * quantization);
    (errors, quantization / 10.0)
}

#[test]
fn promotion_is_the_cheapest_that_keeps_to_a_tenth_of_the_quantizations_error() {
    if device().is_none() {
        return;
    }
    eprintln!("relative L2 errors: of sums against f64, by when they are promoted, and of quantization");
    eprintln!("columns  signs        never   every 512   every 128   quantization");
    for cols in [1024, 2048, 4096, 14336, 28672] {
        let both = [Signs::Random, Signs::Leaning].map(|signs| errors(cols, signs));
        let keeps = |n: usize| both.iter().all(|(errors, most)| errors[n] < *most);
        let cheapest = (0..INTERVALS.len()).find(|n| keeps(*n)).expect("one is good enough");
        assert_eq!(promotion(cols), INTERVALS[cheapest], "{cols} columns");
        for (errors, _) in both {
            assert!(errors[0] >= errors[1] && errors[1] > errors[2] && errors[2] > 0.0, "{errors:?}");
        }
    }
}

/// The same rule holds for weights that are decoded before: it is what the cost model goes by, it keeps to a tenth of the
/// quantization's error, and sums that it has promoted would not keep to it otherwise.
#[test]
fn sums_of_few_bits_are_near_enough() {
    if device().is_none() {
        return;
    }
    for cols in [2048, 4096] {
        let rule = promotion(cols);
        let chosen = cost_fp8::choose(&LinearFp8::from(Linear::plain(4096, cols, 128)), 4096).0;
        assert_eq!(chosen.promotion, rule, "{chosen:?}");
        let mut needed = rule == 0;
        for signs in [Signs::Random, Signs::Leaning] {
            let operands = Operands::new(cols, signs);
            let contract = operands.contract();
            let most = error(&operands.unquantized(), &contract) / 10.0;
            let [kept, never] = [rule, 0].map(|promotion| error(&contract, &operands.decoded(promotion)));
            eprintln!(
                "{cols} columns, {signs:?}, decoded: {kept:.1e} of {most:.1e}, without promotion {never:.1e}"
            );
            assert!(kept < most && kept > 0.0, "{cols} columns, {signs:?}: {kept:.1e} of {most:.1e}");
            needed |= never >= most;
        }
        assert!(needed, "{cols} columns are promoted for nothing");
    }
}
