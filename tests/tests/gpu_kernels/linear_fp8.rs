//! Products with weights that were decoded before: the decoding to the bit, then every tile, schedule and cluster.

use std::collections::BTreeSet;

use fireq_ir::interp::Data;
use fireq_ir::quant::Quantized;
use fireq_ir::{DType, Format, e4m3};
use fireq_kernels::cuda::cost_fp8::choose;
use fireq_kernels::cuda::{Addend, Linear, LinearFp8, LinearFp8Config, Output, Schedule, Unit, params};
use fireq_kernels::records::records;
use fireq_tests::relative_error;

use super::device::{Device, UNTOUCHED, device};
use super::linear::{NAN, addend, assert_outputs, case, near, room};
use super::oracle::{Case, pitched};
use super::record::Near;

/// Tiles of so many tokens in so many stages, as neither clusters nor promotion nor turns have them.
pub fn tiles(tokens: usize, stages: usize) -> LinearFp8Config {
    LinearFp8Config { tokens, stages, cluster: 1, promotion: 0, schedule: Schedule::Together }
}

/// A product on `ctas` CTAs in bands of `band` token tiles.
pub struct Product {
    pub linear: Linear,
    pub config: LinearFp8Config,
    pub tokens: usize,
    pub ctas: usize,
    pub band: usize,
}

impl Product {
    pub fn unit(&self) -> Unit {
        LinearFp8::from(self.linear).unit(&self.config, self.ctas, "a test".into()).unwrap()
    }

    /// The operands in memory, and room for the product.
    pub fn operands(&self, gpu: &mut Device, case: &Case) -> params::LinearFp8 {
        let Data::Quant(weight) = case.constant_tensor("w").data else { panic!("the weight is quantized") };
        let linear = LinearFp8::from(self.linear);
        let x = case.input_parts("x");
        let codes = gpu.put("x codes", &pitched(&x[0], self.linear.cols, NAN));
        let decoded = gpu.put("decoded weight", &workspace(&self.linear, &weight));
        params::LinearFp8 {
            x: Device::map(codes, &linear.x(&self.config, self.tokens)),
            weight: Device::map(decoded, &linear.weight(&self.config)),
            token_scales: gpu.put("token scales", &x[1]),
            channel_scales: gpu.put_f32("channel scales", &weight.scales[1]),
            addend: addend(gpu, case, &self.linear),
            out: room(gpu, &self.linear, self.tokens),
            tokens: self.tokens as u32,
            channels: self.linear.outputs() as u32,
            steps: linear.steps() as u32,
            band: self.band as u32,
        }
    }
}

/// Channels, columns and addend; tokens; CTAs and band.
fn check(
    (channels, cols, addend): (usize, usize, Addend),
    config: LinearFp8Config,
    tokens: usize,
    launch: [usize; 2],
) {
    check_output([channels, cols], (addend, Output::F32), config, tokens, launch);
}

/// Runs a product, whose outputs are the interpreter's.
pub fn check_output(
    [channels, cols]: [usize; 2],
    epilogue: (Addend, Output),
    config: LinearFp8Config,
    tokens: usize,
    [ctas, band]: [usize; 2],
) {
    let Some(mut gpu) = device() else { return };
    gpu.near = near(epilogue.1);
    let (linear, case) = case([channels, cols, 128], epilogue, tokens);
    let product = Product { linear, config, tokens, ctas, band };
    let params = product.operands(&mut gpu, &case);
    gpu.launch(&product.unit(), tokens, 0, &params);
    assert_outputs(&gpu, &case, &linear, params.out, &(config, tokens));
}

/// The weight's numbers rn8(q·σ) in the order of a workspace; what is beyond the weight is zero.
pub fn workspace(linear: &Linear, weight: &Quantized) -> Vec<u8> {
    let [rows, cols] = LinearFp8::from(*linear).workspace();
    let mut all: Vec<u8> = (0..linear.channels)
        .flat_map(|row| {
            let mut codes: Vec<u8> = weight.mainloop_row(row).into_iter().map(e4m3::encode).collect();
            codes.resize(cols, 0);
            codes
        })
        .collect();
    all.resize(rows * cols, 0);
    all
}

pub fn check_decoding(linear: &Linear, weight: &Quantized) {
    let Some(mut gpu) = device() else { return };
    let [rows, cols] = LinearFp8::from(*linear).workspace();
    let params = params::DecodeWeight {
        records: gpu.put("records", &records(weight).unwrap()),
        rows: gpu.space("workspace", rows * cols + 64),
        steps: linear.steps() as u32,
    };
    gpu.launch(&linear.decode_unit("a test".into()).unwrap(), 1, 0, &params);
    let found = gpu.bytes(params.rows, rows * cols + 64);
    let want = [workspace(linear, weight), vec![UNTOUCHED; 64]].concat();
    // A product of zero may have either sign.
    let number = |byte: u8| if byte == 0x80 { 0 } else { byte };
    let wrong = found.iter().zip(&want).position(|(found, want)| number(*found) != number(*want));
    assert_eq!(wrong.map(|i| [i / cols, i % cols]), None, "{linear:?}");
}

#[test]
fn weights_are_decoded_to_the_numbers_of_the_contract() {
    for sizes in [[64, 16, 128], [132, 272, 128], [196, 400, 64], [260, 528, 128]] {
        let (linear, case) = case(sizes, (Addend::Nothing, Output::F32), 1);
        let Data::Quant(weight) = case.constant_tensor("w").data else { panic!("the weight is quantized") };
        check_decoding(&linear, &weight);
    }
}

#[test]
fn every_code_is_decoded_under_every_scale() {
    let scales: Vec<f32> = (0..=u8::MAX).map(e4m3::decode).filter(|scale| !scale.is_nan()).collect();
    let (channels, cols) = (scales.len().next_multiple_of(4), 128);
    let scales: Vec<f32> = scales.into_iter().chain([1.0, 2.0]).collect();
    let weight = Quantized {
        format: Format::weight(128),
        cols,
        codes: (0..channels * cols).map(|i| ((i + i / 16) % 16) as i8 - 8).collect(),
        scales: vec![scales, vec![1.0; channels]],
    };
    check_decoding(&Linear::plain(channels, cols, 128), &weight);
}

#[test]
fn a_cta_takes_tile_after_tile() {
    check((260, 400, Addend::Nothing), tiles(128, 2), 140, [2, 1]);
    check((132, 272, Addend::Residual), tiles(256, 3), 300, [3, 2]);
    check((68, 784, Addend::Bias(DType::F32)), tiles(192, 4), 200, [1, 8]);
}

#[test]
fn pairs_of_ctas_share_tokens() {
    let pair = |tokens, stages| LinearFp8Config { cluster: 2, ..tiles(tokens, stages) };
    check((260, 400, Addend::Residual), pair(128, 2), 140, [2, 2]);
    check((260, 528, Addend::Bias(DType::F32)), pair(256, 3), 260, [4, 1]);
    check((64, 144, Addend::Nothing), pair(192, 2), 50, [2, 1]);
}

#[test]
fn sums_are_promoted_after_each_step_or_several() {
    for promotion in [1, 3, 4] {
        let config = LinearFp8Config { promotion, cluster: 2, ..tiles(128, 3) };
        check((132, 656, Addend::Nothing), config, 140, [2, 2]);
        let config = LinearFp8Config { promotion, ..tiles(192, 4) };
        check((68, 640, Addend::Residual), config, 200, [1, 2]);
    }
}

#[test]
fn warpgroups_take_turns() {
    let alternately = |tokens, cluster, promotion| LinearFp8Config {
        cluster,
        promotion,
        schedule: Schedule::Alternately,
        ..tiles(tokens, 3)
    };
    check((196, 400, Addend::Nothing), alternately(128, 1, 0), 140, [2, 2]);
    check((196, 528, Addend::Residual), alternately(256, 2, 0), 260, [2, 8]);
    check((132, 656, Addend::Bias(DType::F32)), alternately(192, 2, 1), 200, [2, 1]);
    check((64, 16, Addend::Nothing), alternately(128, 1, 0), 300, [1, 2]);
}

/// Channels that are no multiple of a tile's, tokens neither; a pair of CTAs of which one has no channels.
#[test]
fn outputs_round_to_bf16() {
    let check = |sizes, addend, config, tokens| {
        check_output(sizes, (addend, Output::Bf16), config, tokens, [2, 2]);
    };
    let promoted = LinearFp8Config { promotion: 4, ..tiles(192, 3) };
    check([136, 400], Addend::Nothing, LinearFp8Config { cluster: 2, ..tiles(256, 3) }, 270);
    check([200, 656], Addend::Residual, promoted, 193);
    check([72, 272], Addend::Bias(DType::BF16), tiles(128, 2), 130);
    let in_turn = LinearFp8Config { schedule: Schedule::Alternately, ..tiles(128, 3) };
    check([136, 272], Addend::Residual, in_turn, 130);
}

#[test]
fn biases_are_read_in_their_own_format() {
    check((68, 272, Addend::Bias(DType::F16)), tiles(128, 2), 20, [1, 1]);
    let in_turn = LinearFp8Config { schedule: Schedule::Alternately, ..tiles(192, 3) };
    check((132, 272, Addend::Bias(DType::BF16)), in_turn, 200, [2, 2]);
}

/// Gates and ups of one tile and of several, of odd numbers for pairs of CTAs, promoted and not.
#[test]
fn gated_products_are_the_interpreters() {
    let gated = |sizes, config, tokens, launch| {
        check_output(sizes, (Addend::Nothing, Output::Swiglu), config, tokens, launch);
    };
    let pair = |tokens, stages| LinearFp8Config { cluster: 2, ..tiles(tokens, stages) };
    gated([128, 272], tiles(128, 2), 20, [1, 1]);
    gated([384, 400], pair(128, 3), 300, [2, 2]);
    gated([256, 656], LinearFp8Config { promotion: 4, ..pair(192, 3) }, 193, [2, 1]);
    gated([384, 528], tiles(256, 3), 260, [2, 2]);
}

/// The two launches of a product of many tokens, one after the other on one memory.
#[test]
fn what_is_decoded_is_what_is_multiplied() {
    let Some(mut gpu) = device() else { return };
    gpu.near = Near::Relatively(1e-3);
    let tokens = 150;
    let (linear, case) = case([196, 400, 64], (Addend::Residual, Output::F32), tokens);
    let Data::Quant(weight) = case.constant_tensor("w").data else { panic!("the weight is quantized") };
    let config = LinearFp8Config { cluster: 2, ..tiles(128, 3) };
    let product = Product { linear, config, tokens, ctas: 2, band: 2 };
    let params = product.operands(&mut gpu, &case);
    let [rows, cols] = LinearFp8::from(linear).workspace();
    let workspace = gpu.space("workspace", rows * cols);
    let decoding = params::DecodeWeight {
        records: gpu.put("records", &records(&weight).unwrap()),
        rows: workspace,
        steps: linear.steps() as u32,
    };
    gpu.near = Near::Exactly;
    gpu.launch(&linear.decode_unit("a test".into()).unwrap(), tokens, 0, &decoding);
    gpu.near = Near::Relatively(1e-3);
    let weight = Device::map(workspace, &LinearFp8::from(linear).weight(&config));
    gpu.launch(&product.unit(), tokens, 0, &params::LinearFp8 { weight, ..params });
    let error = relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, tokens * linear.channels));
    assert!(error < 1e-6, "{error:.1e}");
}

/// Every configuration that the cost model chooses for Llama-3-8B, on a shape with tails in all directions.
#[test]
fn configurations_for_llama_3_8b_are_right() {
    let shapes = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)];
    let chosen: BTreeSet<LinearFp8Config> = shapes
        .into_iter()
        .flat_map(|(channels, cols)| {
            let linear = LinearFp8::from(Linear::plain(channels, cols, 128));
            [512, 4096, 16384].map(|tokens| choose(&linear, tokens).0)
        })
        .collect();
    for config in chosen {
        let channels = config.channels() * config.cluster + 4;
        let cols = 128 * config.stages + 16;
        check((channels, cols, Addend::Residual), config, config.tokens + 1, [2 * config.cluster, 8]);
    }
}
