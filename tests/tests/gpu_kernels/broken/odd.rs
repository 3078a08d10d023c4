//! Tails of odd sizes, one too long or too short on purpose.

use fireq_kernels::cuda::params::Quantize;
use fireq_kernels::cuda::{Addend, LinearFp8, Output, params, quantize};
use fireq_kernels::layout::pitch;
use fireq_tests::relative_error;

use super::super::decode_attention::{self, Step, WHOLE};
use super::super::device::{Device, device};
use super::super::linear::{case, configured, operands};
use super::super::linear_fp8::{Product, tiles};
use super::broken;

const SIZES: [usize; 3] = [257, 130, 128];
const TOKENS: usize = 5;

/// The relative error of a product by a broken kernel, whose tokens are said to have so many columns; or what the simulator says.
fn product(cols: usize, right: &str, wrong: &str) -> Result<f64, String> {
    let mut gpu = device().expect("asked before");
    let (linear, case) = case(SIZES, (Addend::Residual, Output::F32), TOKENS);
    let config = configured([8, 1, 2, 2]);
    let params = operands(&mut gpu, &case, &linear, &config, TOKENS);
    let mut shape = linear.x(&config, TOKENS);
    shape.sizes[0] = cols as u64;
    let codes = gpu.address("x codes");
    let params = params::Linear { x: Device::map(codes, &shape), ..params };
    let unit = linear.unit(&config, String::new()).unwrap();
    gpu.attempt(&unit, &broken(&unit, right, wrong), TOKENS, &params)?;
    Ok(relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, TOKENS * linear.channels)))
}

fn is_wrong(found: &Result<f64, String>) -> bool {
    found
        .as_ref()
        .map_or_else(|fault| fault.contains("out of bounds"), |error| error.is_nan() || *error > 1e-3)
}

#[test]
fn products_of_one_channel_or_column_more_are_caught() {
    if device().is_none() {
        return;
    }
    let [_, cols, _] = SIZES;
    let end = "if (t >= output.tokens || c >= output.channels) continue;";
    assert!(product(cols, end, end).unwrap() < 1e-6);
    for wrong in [end.replace("c >= output.channels", "c > output.channels"), end.replace("t >= ", "t > ")] {
        let found = product(cols, end, &wrong);
        assert!(is_wrong(&found), "`{wrong}`: {found:?}");
    }
    for cols in [cols + 1, cols - 1] {
        let found = product(cols, end, end);
        assert!(is_wrong(&found), "{cols} columns: {found:?}");
    }
}

#[test]
fn products_with_decoded_weights_of_one_channel_more_are_caught() {
    let Some(mut gpu) = device() else { return };
    let (linear, case) = case(SIZES, (Addend::Residual, Output::F32), TOKENS);
    let product = Product { linear, config: tiles(128, 2), tokens: TOKENS, ctas: 1, band: 1 };
    let (unit, params) = (
        LinearFp8::from(linear).unit(&product.config, 1, String::new()).unwrap(),
        product.operands(&mut gpu, &case),
    );
    let mut attempt = |right: &str, wrong: &str| {
        gpu.attempt(&unit, &broken(&unit, right, wrong), TOKENS, &params)?;
        Ok(relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, TOKENS * linear.channels)))
    };
    let end = "return channel + column() < output.channels &&";
    assert!(attempt(end, end).unwrap() < 1e-6);
    let found = attempt(end, &end.replace('<', "<="));
    assert!(is_wrong(&found), "{found:?}");
}

/// What is written where no column is, is none of what a product reads, but nobody else's either.
#[test]
fn rows_that_are_closer_than_16_bytes_allow_are_caught() {
    let Some(mut gpu) = device() else { return };
    let (cols, rows) = (130, 2);
    let unit = quantize(cols).unwrap();
    let x: Vec<f32> = (0..cols * rows).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = gpu.put_f32("x", &x);
    let mut codes = |right: &str, wrong: &str| {
        let (codes, scales) = (gpu.space("codes", rows * pitch(cols)), gpu.space("scales", 4 * rows));
        gpu.attempt(&unit, &broken(&unit, right, wrong), rows, &Quantize { x, codes, scales }).unwrap();
        gpu.bytes(codes, rows * pitch(cols))
    };
    let apart = "return (cols + 15) / 16 * 16;";
    let right = codes(apart, apart);
    assert!(codes(apart, "return cols;") != right);
}

/// Queries of 36 channels: behind them are NaN, which products would take for four more.
#[test]
fn channels_behind_the_last_of_a_head_are_caught() {
    let Some(mut gpu) = device() else { return };
    let (of, keys) = (decode_attention::of([3, 1, 36, 64]), [100]);
    let step = Step::new(of, &keys, 0.3);
    let params = step.params(&mut gpu, decode_attention::split(&keys, WHOLE));
    let unit = of.unit().unwrap();
    let mut attempt = |right: &str, wrong: &str| {
        gpu.attempt(&unit, &broken(&unit, right, wrong), 1, &params)?;
        Ok(relative_error(&step.rounded(), &gpu.f32s(params.out, 3 * 36)))
    };
    for end in ["channel + 4 < Tile::HEAD ?", "at >= Tile::HEAD) continue;"] {
        assert!(attempt(end, end).unwrap() < 5e-4);
        let wrong = if end.contains('?') { end.replace('<', "<=") } else { end.replace(">=", ">") };
        let found = attempt(end, &wrong);
        assert!(is_wrong(&found), "`{wrong}`: {found:?}");
    }
}
