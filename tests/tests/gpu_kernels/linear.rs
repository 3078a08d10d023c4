//! INT4 weights times E4M3 tokens: every token tile, one and two warpgroups, K split over clusters, tails everywhere.

use std::collections::BTreeSet;

use fireq_ir::interp::Data;
use fireq_kernels::cuda::cost::regimes;
use fireq_kernels::cuda::{Addend, Linear, LinearConfig, params};
use fireq_kernels::records::records;
use fireq_tests::relative_error;

use super::device::{Device, UNTOUCHED, device};
use super::oracle::Case;
use super::record::Near;

/// A product with weights in groups of `group`, and the operations that it stands for.
pub fn case([channels, cols, group]: [usize; 3], addend: Addend, tokens: usize) -> (Linear, Case) {
    let (more, last) = match addend {
        Addend::Nothing => (String::new(), 2),
        Addend::Bias => (
            format!(
                "%3 = const {{name=\"addend\"}} : f32[{channels}]\n%4 = bias %2, %3 : f32[T,{channels}]\n"
            ),
            4,
        ),
        Addend::Residual => (
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
    (Linear::of(&case.constant_tensor("w").ty, addend).unwrap(), case)
}

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
    let codes = gpu.put("x codes", &x[0]);
    let addend = match linear.addend {
        Addend::Nothing => 0,
        Addend::Bias => gpu.put("bias", &case.constant("addend")),
        Addend::Residual => gpu.put("residual", &case.input("addend")),
    };
    params::Linear {
        x: Device::map(codes, &linear.x(config, tokens)),
        records: gpu.put("records", &records(&weight).unwrap()),
        token_scales: gpu.put("token scales", &x[1]),
        channel_scales: gpu.put_f32("channel scales", &weight.scales[1]),
        addend,
        out: gpu.space("out", 4 * tokens * linear.channels + 64),
        tokens: tokens as u32,
        channels: linear.channels as u32,
        steps: linear.steps() as u32,
    }
}

fn check(sizes: [usize; 3], addend: Addend, config: [usize; 4], tokens: usize) {
    check_configured(sizes, addend, configured(config), tokens);
}

fn check_configured(sizes: [usize; 3], addend: Addend, config: LinearConfig, tokens: usize) {
    let Some(mut gpu) = device() else { return };
    gpu.near = Near::Relatively(1e-3);
    let (linear, case) = case(sizes, addend, tokens);
    let params = operands(&mut gpu, &case, &linear, &config, tokens);
    gpu.launch(&linear.unit(&config, "a test".into()).unwrap(), tokens, 0, &params);
    let elements = tokens * linear.channels;
    let error = relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, elements));
    assert!(error < 1e-6, "{linear:?}, {config:?}, {tokens} tokens: {error:.1e}");
    assert_eq!(gpu.bytes(params.out + 4 * elements as u64, 64), [UNTOUCHED; 64], "behind the output");
}

/// Tokens of a tile, warpgroups, stages, and the CTAs that share out K.
pub fn configured([tokens, warpgroups, stages, split]: [usize; 4]) -> LinearConfig {
    LinearConfig { tokens, warpgroups, stages, split, promote: 0 }
}

#[test]
fn few_tokens_split_k_over_clusters() {
    for (tile, split, tokens) in [(8, 1, 1), (8, 8, 3), (16, 4, 16), (32, 2, 17)] {
        check([196, 1168, 128], Addend::Nothing, [tile, 1, 6, split], tokens);
        check([132, 1024, 64], Addend::Residual, [tile, 2, 3, split], tokens);
    }
}

#[test]
fn more_ctas_than_steps_leave_some_without_any() {
    check([64, 272, 128], Addend::Bias, [8, 1, 4, 8], 5);
}

#[test]
fn many_tokens_fill_tiles_and_leave_tails() {
    check([260, 640, 128], Addend::Residual, [64, 2, 4, 1], 130);
    check([128, 400, 64], Addend::Bias, [128, 1, 2, 1], 129);
    check([128, 528, 128], Addend::Bias, [128, 2, 3, 2], 40);
    check([132, 384, 128], Addend::Nothing, [256, 2, 4, 1], 260);
    check([64, 272, 64], Addend::Residual, [256, 1, 2, 1], 77);
}

/// Numbers of steps that end with a promotion, behind one and before one.
#[test]
fn sums_are_promoted_every_step_or_every_few() {
    let promoted = |config, promote| LinearConfig { promote, ..configured(config) };
    for (promote, cols) in [(1, 128), (1, 384), (1, 528), (2, 640), (4, 400), (4, 640), (4, 1024), (4, 1168)]
    {
        check_configured([68, cols, 128], Addend::Nothing, promoted([16, 1, 3, 1], promote), 17);
    }
    check_configured([132, 1168, 64], Addend::Residual, promoted([128, 2, 3, 1], 4), 130);
    check_configured([64, 400, 64], Addend::Bias, promoted([128, 1, 3, 1], 1), 40);
    check_configured([132, 656, 64], Addend::Bias, promoted([64, 2, 4, 2], 1), 70);
    check_configured([64, 272, 128], Addend::Nothing, promoted([8, 1, 4, 8], 4), 5);
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
    let (linear, case) = case([64, 528, 128], Addend::Nothing, tokens);
    let mut codes = case.input("x");
    codes.resize(rows * linear.cols, 0x7f);
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
        .flat_map(|(channels, cols)| regimes(&Linear { channels, cols, group: 128, addend: Addend::Nothing }))
        .map(|regime| regime.config)
        .collect();
    assert!(chosen.len() >= 6, "{chosen:?}");
    for c in chosen {
        let steps = (c.split * c.stages).min(9).max(2 * c.promote);
        let sizes = [c.channels() + 4, 128 * steps + 16, 128];
        check_configured(sizes, Addend::Residual, c, c.tokens + 1);
    }
}
