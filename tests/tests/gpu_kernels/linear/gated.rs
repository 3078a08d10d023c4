//! Products of gates and ups, which meet in the epilogue.

use fireq_kernels::cuda::{Addend, Linear, LinearConfig, Output, params, quantize};

use super::{check_configured, configured, operands};
use crate::device::device;
use crate::oracle::{Case, parts};
use crate::record::Near;

/// Gates and ups of one row of tiles and of several; every tile of tokens, K split and promoted.
#[test]
fn gated_products_are_the_interpreters() {
    let gated = |sizes, config, promotion, tokens| {
        let config = LinearConfig { promotion, ..configured(config) };
        check_configured(sizes, (Addend::Nothing, Output::Swiglu), config, tokens);
    };
    gated([128, 1168, 128], [8, 2, 4, 8], 0, 3);
    gated([384, 528, 128], [16, 2, 3, 2], 0, 17);
    gated([256, 272, 64], [32, 2, 3, 1], 0, 40);
    gated([384, 640, 128], [64, 2, 3, 1], 4, 65);
    gated([256, 656, 64], [128, 2, 3, 1], 4, 130);
    gated([256, 400, 128], [128, 2, 3, 2], 1, 30);
    gated([128, 384, 128], [256, 2, 2, 1], 0, 260);
}

/// Both launches of a fused operation: codes are the interpreter's or their neighbours, as `silu` is approximate.
#[test]
fn gated_products_are_quantized_behind() {
    let Some(mut gpu) = device() else { return };
    gpu.near = Near::Relatively(1e-3);
    let ([channels, cols, tokens], config) = ([512, 272, 5], configured([8, 2, 3, 2]));
    let case = Case::new(
        &format!(
            "%0 = input {{name=\"x\"}} : e4m3<row:f32>[T,{cols}]\n\
             %1 = const {{name=\"w\"}} : i4<g128:e4m3,row:f32>[{channels},{cols}]\n\
             %2 = linear_swiglu %0, %1 {{to=e4m3<row:f32>}} : e4m3<row:f32>[T,256]\nreturn %2"
        ),
        [tokens, 0, 1],
    );
    let linear = Linear { output: Output::Swiglu, ..Linear::plain(channels, cols, 128) };
    let params = operands(&mut gpu, &case, &linear, &config, tokens);
    gpu.launch(&linear.unit(&config, "a test".into()).unwrap(), tokens, 0, &params);
    gpu.near = Near::Approximately;
    let (codes, scales) = (gpu.space("codes", tokens * 256), gpu.space("scales", 4 * tokens));
    gpu.launch(&quantize(256).unwrap(), tokens, 0, &params::Quantize { x: params.out, codes, scales });
    let expected = parts(case.output(0));
    let found = gpu.bytes(codes, tokens * 256);
    let off = found.iter().zip(&expected[0]).filter(|(found, wanted)| found != wanted);
    let off: Vec<u8> = off.map(|(found, wanted)| found.abs_diff(*wanted)).collect();
    assert!(off.iter().all(|steps| *steps == 1) && off.len() * 100 <= found.len(), "{off:?}");
}
