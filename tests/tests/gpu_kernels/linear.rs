//! INT4 weights times E4M3 tokens: every token tile, one and two warpgroups, K split over clusters, tails everywhere.

pub mod bands;
mod clusters;
mod gated;

use std::collections::BTreeSet;
use std::fmt::Debug;

use fireq_ir::DType;
use fireq_ir::interp::Data;
use fireq_kernels::cuda::cost::regimes;
use fireq_kernels::cuda::{Addend, Linear, LinearConfig, Output, params};
use fireq_kernels::records::records;
use fireq_tests::relative_error;
use half::bf16;

use super::device::{Device, UNTOUCHED, device};
use super::oracle::{Case, pitched};
use super::record::Near;

/// A product with weights in groups of `group`, and the operations that it stands for.
pub fn case(
    [channels, cols, group]: [usize; 3],
    (addend, output): (Addend, Output),
    tokens: usize,
) -> (Linear, Case) {
    let (more, last) = match (addend, output) {
        (Addend::Nothing, Output::Swiglu) => {
            let half = channels / 2;
            let text = format!(
                "%3 = slice %2 {{start=0, size={half}}} : f32[T,{half}]\n%4 = silu %3 : f32[T,{half}]\n\
                 %5 = slice %2 {{start={half}, size={half}}} : f32[T,{half}]\n%6 = mul %4, %5 : f32[T,{half}]\n"
            );
            (text, 6)
        }
        (Addend::Nothing, _) => (String::new(), 2),
        (Addend::Bias(dtype), _) => (
            format!(
                "%3 = const {{name=\"addend\"}} : {dtype}[{channels}]\n%4 = bias %2, %3 : f32[T,{channels}]\n"
            ),
            4,
        ),
        (Addend::Residual, _) => (
            format!(
                "%3 = input {{name=\"addend\"}} : f32[T,{channels}]\n%4 = add %3, %2 : f32[T,{channels}]\n"
            ),
            4,
        ),
    };
    let body = format!(
        "%0 = input {{name=\"x\"}} : e4m3<row:f32>[T,{cols}]\n\
         %1 = const {{name=\"w\"}} : i4<g{group}:e4m3,row:f32>[{channels},{cols}]\n\
         %2 = linear %0, %1 : f32[T,{channels}]\n{more}return %{last}"
    );
    let case = Case::new(&body, [tokens, 0, 1]);
    (Linear::of(&case.constant_tensor("w").ty, addend, output).unwrap(), case)
}

/// An E4M3 code that is no number: in operands, where nothing is read.
pub const NAN: u8 = 0x7f;

/// The operands in memory, and room for the product.
pub fn operands(
    gpu: &mut Device,
    case: &Case,
    linear: &Linear,
    config: &LinearConfig,
    tokens: usize,
) -> params::Linear {
    let Data::Quant(weight) = case.constant_tensor("w").data else { panic!("the weight is quantized") };
    let x = case.input_parts("x");
    let codes = gpu.put("x codes", &pitched(&x[0], linear.cols, NAN));
    params::Linear {
        x: Device::map(codes, &linear.x(config, tokens)),
        records: gpu.put("records", &records(&weight).unwrap()),
        token_scales: gpu.put("token scales", &x[1]),
        channel_scales: gpu.put_f32("channel scales", &weight.scales[1]),
        addend: addend(gpu, case, linear),
        out: room(gpu, linear, tokens),
        tokens: tokens as u32,
        channels: linear.outputs() as u32,
        steps: linear.steps() as u32,
    }
}

/// What is added, in memory.
pub fn addend(gpu: &mut Device, case: &Case, linear: &Linear) -> u64 {
    match linear.addend {
        Addend::Nothing => 0,
        Addend::Bias(_) => gpu.put("bias", &case.constant("addend")),
        Addend::Residual => gpu.put("residual", &case.input("addend")),
    }
}

/// Room for outputs and 64 bytes behind them.
pub fn room(gpu: &mut Device, linear: &Linear, tokens: usize) -> u64 {
    let name = if linear.output == Output::Bf16 { "out bf16" } else { "out" };
    gpu.space(name, linear.output.bytes() * linear.channels * tokens + 64)
}

/// How near a GPU's outputs come: neighbours in bf16 are 4e-3 apart.
pub fn near(output: Output) -> Near {
    Near::Relatively(if output == Output::Bf16 { 4e-3 } else { 1e-3 })
}

/// Outputs are the interpreter's; in bf16 what those round to, but where sums that round otherwise lie in the middle of two.
pub fn assert_outputs(gpu: &Device, case: &Case, linear: &Linear, out: u64, what: &dyn Debug) {
    let expected = case.output(0).to_f32();
    let bytes = if linear.output == Output::Bf16 {
        let expected: Vec<u16> = expected.iter().map(|y| bf16::from_f32(*y).to_bits()).collect();
        let bytes = gpu.bytes(out, 2 * expected.len());
        let found: Vec<u16> = bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
        let off: Vec<(u16, u16)> =
            expected.iter().copied().zip(found).filter(|(wanted, found)| wanted != found).collect();
        assert!(
            off.iter().all(|(wanted, found)| wanted.abs_diff(*found) == 1),
            "{linear:?}, {what:?}: {off:?}"
        );
        assert!(
            off.len() * 1000 <= expected.len(),
            "{linear:?}, {what:?}: {} of {}",
            off.len(),
            expected.len()
        );
        bytes.len()
    } else {
        let error = relative_error(&expected, &gpu.f32s(out, expected.len()));
        assert!(error < 1e-6, "{linear:?}, {what:?}: {error:.1e}");
        4 * expected.len()
    };
    assert_eq!(gpu.bytes(out + bytes as u64, 64), [UNTOUCHED; 64], "behind the output");
}

fn check(sizes: [usize; 3], addend: Addend, config: [usize; 4], tokens: usize) {
    check_configured(sizes, (addend, Output::F32), configured(config), tokens);
}

/// Runs a product, whose outputs are the interpreter's.
pub fn check_configured(sizes: [usize; 3], epilogue: (Addend, Output), config: LinearConfig, tokens: usize) {
    let Some(mut gpu) = device() else { return };
    gpu.near = near(epilogue.1);
    let (linear, case) = case(sizes, epilogue, tokens);
    let params = operands(&mut gpu, &case, &linear, &config, tokens);
    gpu.launch(&linear.unit(&config, "a test".into()).unwrap(), tokens, 0, &params);
    assert_outputs(&gpu, &case, &linear, params.out, &(config, tokens));
}

/// Tokens of a tile, warpgroups, stages, and the CTAs that share out K; stages of two steps.
pub fn configured([tokens, warpgroups, stages, split]: [usize; 4]) -> LinearConfig {
    LinearConfig { tokens, warpgroups, stages, steps: 2, split, cluster: 1, promotion: 0, band: 0 }
}

#[test]
fn few_tokens_split_k_over_clusters() {
    for (tile, split, tokens) in [(8, 1, 1), (8, 8, 3), (16, 4, 16), (32, 2, 17)] {
        check([196, 1168, 128], Addend::Nothing, [tile, 1, 3, split], tokens);
        check([132, 1024, 64], Addend::Residual, [tile, 2, 2, split], tokens);
    }
}

/// Numbers of steps that leave none to four for the last stage of a CTA.
#[test]
fn stages_have_two_steps_or_four_and_the_last_fewer() {
    for cols in [128, 272, 512, 656, 1040, 1424] {
        for (steps, split) in [(2, 1), (4, 1), (4, 2)] {
            let config = LinearConfig { steps, ..configured([16, 1, 2, split]) };
            check_configured([68, cols, 128], (Addend::Nothing, Output::F32), config, 17);
        }
    }
}

#[test]
fn more_ctas_than_steps_leave_some_without_any() {
    check([64, 272, 128], Addend::Bias(DType::F32), [8, 1, 4, 8], 5);
}

#[test]
fn many_tokens_fill_tiles_and_leave_tails() {
    check([260, 640, 128], Addend::Residual, [64, 2, 2, 1], 130);
    check([128, 400, 64], Addend::Bias(DType::F32), [128, 1, 2, 1], 129);
    check([128, 528, 128], Addend::Bias(DType::F32), [128, 2, 3, 2], 40);
    check([132, 384, 128], Addend::Nothing, [256, 2, 2, 1], 260);
    check([64, 272, 64], Addend::Residual, [256, 1, 2, 1], 77);
}

/// Numbers of steps that end with a promotion, behind one and before one.
#[test]
fn sums_are_promoted_every_step_or_every_few() {
    let promoted = |config, promotion| LinearConfig { promotion, ..configured(config) };
    let deeper = |config, promotion| LinearConfig { steps: 4, ..promoted(config, promotion) };
    let check = |sizes, addend, config, tokens| {
        check_configured(sizes, (addend, Output::F32), config, tokens);
    };
    let [nothing, residual, bias] = [Addend::Nothing, Addend::Residual, Addend::Bias(DType::F32)];
    for (promotion, cols) in
        [(1, 128), (1, 384), (1, 528), (2, 640), (4, 400), (4, 640), (4, 1024), (4, 1168)]
    {
        check([68, cols, 128], nothing, promoted([16, 1, 3, 1], promotion), 17);
        check([68, cols, 64], nothing, deeper([8, 1, 2, 1], promotion), 9);
    }
    check([132, 1168, 64], residual, deeper([64, 2, 2, 2], 4), 70);
    check([68, 784, 128], residual, deeper([128, 2, 2, 1], 4), 130);
    check([132, 1168, 64], residual, promoted([128, 2, 3, 1], 4), 130);
    check([64, 400, 64], bias, promoted([128, 1, 3, 1], 1), 40);
    check([132, 656, 64], bias, promoted([64, 2, 4, 2], 1), 70);
    check([64, 272, 128], nothing, promoted([8, 1, 4, 8], 4), 5);
}

/// Channels that are no multiple of a tile's, tokens neither.
#[test]
fn outputs_round_to_bf16() {
    let promoted = LinearConfig { promotion: 4, ..configured([32, 1, 4, 1]) };
    let check = |sizes, addend, config, tokens| {
        check_configured(sizes, (addend, Output::Bf16), config, tokens);
    };
    check([136, 640, 128], Addend::Nothing, configured([16, 2, 4, 2]), 19);
    check([72, 656, 128], Addend::Residual, promoted, 33);
    check([200, 272, 64], Addend::Bias(DType::BF16), configured([128, 2, 3, 1]), 129);
    check([128, 272, 128], Addend::Nothing, configured([256, 2, 2, 1]), 257);
}

#[test]
fn biases_are_read_in_their_own_format() {
    for dtype in [DType::BF16, DType::F16] {
        check([68, 272, 128], Addend::Bias(dtype), [16, 1, 3, 2], 9);
    }
}

#[test]
fn rows_shorter_than_a_step_are_one_group_or_two() {
    for (cols, group) in [(16, 128), (96, 128), (96, 64), (128, 64), (64, 64)] {
        check([68, cols, group], Addend::Nothing, [16, 1, 2, 1], 9);
    }
}

/// One descriptor of all rows that a buffer has room for serves launches on fewer, though the others be NaN.
#[test]
fn rows_beyond_the_tokens_change_nothing() {
    let Some(mut gpu) = device() else { return };
    gpu.near = Near::Relatively(1e-3);
    let (tokens, rows, config) = (5, 16, configured([8, 1, 4, 2]));
    let (linear, case) = case([64, 528, 128], (Addend::Nothing, Output::F32), tokens);
    let mut codes = case.input("x");
    codes.resize(rows * linear.cols, NAN);
    let codes = gpu.put("all codes", &codes);
    let x = Device::map(codes, &linear.x(&config, rows));
    let params = params::Linear { x, ..operands(&mut gpu, &case, &linear, &config, tokens) };
    gpu.launch(&linear.unit(&config, "a test".into()).unwrap(), tokens, 0, &params);
    let error = relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, tokens * linear.channels));
    assert!(error < 1e-6, "{error:.1e}");
}

/// Every configuration that the cost model chooses for Llama-3-8B, on a shape with tails in all directions.
#[test]
fn configurations_for_llama_3_8b_are_right() {
    let shapes = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)];
    let chosen: BTreeSet<LinearConfig> = shapes
        .into_iter()
        .flat_map(|(channels, cols)| regimes(&Linear::plain(channels, cols, 128)))
        .map(|regime| regime.config)
        .collect();
    assert!(chosen.len() >= 6, "{chosen:?}");
    for c in chosen {
        let steps = (c.split * c.stages * c.steps).min(9).max(2 * c.promotion).max(c.steps + 1);
        let sizes = [c.channels() + 4, 128 * steps + 16, 128];
        check_configured(sizes, (Addend::Residual, Output::F32), c, c.tokens + 1);
    }
}
