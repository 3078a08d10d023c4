//! Kernels that hold a row: norms and quantizations per token.

use fireq_ir::{DType, e4m3};
use fireq_kernels::cuda::{norm_quantize, params, quantize, rms_norm, swiglu_quantize};
use fireq_kernels::layout::pitch;

use super::device::{Device, UNTOUCHED, device};
use super::oracle::{Case, parts, pitched};
use super::record::Near;

/// Tokens of a step.
const TOKENS: [usize; 2] = [1, 3];

#[test]
fn norms_are_the_interpreters() {
    let Some(mut gpu) = device() else { return };
    for (cols, run, dtype) in [
        (256, 64, "bf16"),
        (96, 96, "f32"),
        (50, 50, "bf16"),
        (37, 37, "f16"),
        (144, 48, "bf16"),
        (2048, 2048, "bf16"),
    ] {
        for tokens in TOKENS {
            let body = format!(
                "%0 = input {{name=\"x\"}} : f32[T,{cols}]\n%1 = const {{name=\"w\"}} : {dtype}[{run}]\n\
                 %2 = rms_norm %0, %1 {{eps=1e-5}} : f32[T,{cols}]\nreturn %2"
            );
            let case = Case::new(&body, [tokens, 0, 1]);
            // Rows of a merged projection: what is normed stands behind four other numbers.
            let rows = case.input_f32("x");
            let merged: Vec<f32> = rows.chunks(cols).flat_map(|row| [&[f32::NAN; 4], row].concat()).collect();
            let unit = rms_norm(run, dtype_of(dtype)).unwrap();
            let out = gpu.space("out", 4 * tokens * cols);
            let params = params::RmsNorm {
                x: gpu.put_f32("x", &merged) + 16,
                weight: gpu.put("weight", &case.constant("w")),
                out,
                stride: (cols + 4) as u32,
                runs: (cols / run) as u32,
                eps: 1e-5,
            };
            gpu.launch(&unit, tokens * cols / run, 0, &params);
            assert_eq!(
                gpu.f32s(out, tokens * cols),
                case.output(0).to_f32(),
                "{cols} in runs of {run}, {tokens} tokens"
            );
        }
    }
}

#[test]
fn quantized_norms_are_the_interpreters_to_the_bit() {
    let Some(mut gpu) = device() else { return };
    for (cols, dtype) in [
        (256, "bf16"),
        (96, "f32"),
        (100, "bf16"),
        (37, "bf16"),
        (130, "bf16"),
        (257, "f32"),
        (576, "bf16"),
        (2048, "bf16"),
        (4096, "f16"),
    ] {
        for tokens in TOKENS {
            let body = format!(
                "%0 = input {{name=\"x\"}} : f32[T,{cols}]\n%1 = const {{name=\"w\"}} : {dtype}[{cols}]\n\
                 %2 = norm_quantize %0, %1 {{eps=1e-6, to=e4m3<row:f32>}} : e4m3<row:f32>[T,{cols}]\nreturn %2"
            );
            let case = Case::new(&body, [tokens, 0, 1]);
            let (codes, scales) = (gpu.space("codes", tokens * pitch(cols)), gpu.space("scales", 4 * tokens));
            let (x, weight) = (gpu.put("x", &case.input("x")), gpu.put("weight", &case.constant("w")));
            let params = params::NormQuantize { x, weight, codes, scales, eps: 1e-6 };
            gpu.launch(&norm_quantize(cols, dtype_of(dtype)).unwrap(), tokens, 0, &params);
            let expected = parts(case.output(0));
            assert_eq!(gpu.bytes(scales, 4 * tokens), expected[1], "scales of {cols}, {tokens} tokens");
            assert_codes(&gpu, codes, cols, &expected[0]);
        }
    }
}

#[test]
fn quantized_rows_are_the_interpreters_to_the_bit() {
    let Some(mut gpu) = device() else { return };
    for cols in [256, 96, 100, 37, 1, 130, 257, 576, 4096] {
        let body = format!(
            "%0 = input {{name=\"x\"}} : f32[T,{cols}]\n\
             %1 = quantize %0 {{to=e4m3<row:f32>}} : e4m3<row:f32>[T,{cols}]\nreturn %1"
        );
        let case = Case::new(&body, [3, 0, 1]);
        check_quantize(&mut gpu, cols, &case.input_f32("x"), &parts(case.output(0)));
    }
}

/// Zeros of both signs, numbers near the ends of the range, and quotients in the middle of two codes.
#[test]
fn edges_of_the_range_quantize_as_the_interpreter_has_it() {
    let Some(mut gpu) = device() else { return };
    let cols = 64;
    let spread = |scale: f32| (0..cols).map(move |i| (i as f32 - 31.5) * scale);
    let ties = (0..cols).map(|i| if i == 0 { 448.0 } else { 1.0 + i as f32 / 16.0 });
    let zeros = (0..cols).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 });
    let small = (0..cols).map(|i| if i == 0 { -1.0 } else { -(i as f32) * 1e-30 });
    let rows: Vec<f32> = zeros
        .chain(ties)
        .chain(small)
        .chain(spread(1e-42))
        .chain(spread(1e-37))
        .chain(spread(1e-20))
        .chain(spread(1e30))
        .chain(spread(1e36))
        .collect();
    let format = fireq_ir::Format::activation();
    let ty = fireq_ir::Type::f32(rows.len() / cols, cols).with_format(&format);
    let expected = parts(&fireq_ir::interp::Tensor::filled(&ty, rows.clone()));
    check_quantize(&mut gpu, cols, &rows, &expected);
}

fn check_quantize(gpu: &mut Device, cols: usize, x: &[f32], expected: &[Vec<u8>]) {
    let tokens = x.len() / cols;
    let (codes, scales) = (gpu.space("codes", tokens * pitch(cols)), gpu.space("scales", 4 * tokens));
    let params = params::Quantize { x: gpu.put_f32("x", x), codes, scales };
    gpu.launch(&quantize(cols).unwrap(), tokens, 0, &params);
    assert_eq!(gpu.bytes(scales, 4 * tokens), expected[1], "scales of {cols}");
    assert_codes(gpu, codes, cols, &expected[0]);
}

/// Codes are these, and between rows nothing is written.
#[track_caller]
fn assert_codes(gpu: &Device, codes: u64, cols: usize, expected: &[u8]) {
    let expected = pitched(expected, cols, UNTOUCHED);
    assert_eq!(gpu.bytes(codes, expected.len()), expected, "codes of {cols}");
}

#[test]
fn swiglu_is_the_interpreters_but_for_neighbours() {
    let Some(mut gpu) = device() else { return };
    gpu.near = Near::Approximately;
    for cols in [96, 172, 37, 130, 257, 768, 2816] {
        let tokens = 3;
        let body = format!(
            "%0 = input {{name=\"x\"}} : f32[T,{0}]\n%1 = slice %0 {{start=0, size={cols}}} : f32[T,{cols}]\n\
             %2 = silu %1 : f32[T,{cols}]\n%3 = slice %0 {{start={cols}, size={cols}}} : f32[T,{cols}]\n\
             %4 = mul %2, %3 : f32[T,{cols}]\n%5 = quantize %4 {{to=e4m3<row:f32>}} : e4m3<row:f32>[T,{cols}]\nreturn %5",
            2 * cols
        );
        let case = Case::new(&body, [tokens, 0, 1]);
        let (codes, scales) = (gpu.space("codes", tokens * pitch(cols)), gpu.space("scales", 4 * tokens));
        let params = params::SwigluQuantize { x: gpu.put("x", &case.input("x")), codes, scales };
        gpu.launch(&swiglu_quantize(cols).unwrap(), tokens, 0, &params);
        let expected = parts(case.output(0));
        let wanted: Vec<f32> =
            expected[1].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        for (found, wanted) in gpu.f32s(scales, tokens).iter().zip(&wanted) {
            assert!(((found - wanted) / wanted).abs() < 2f32.powi(-20), "{found} is not {wanted}");
        }
        let rows = gpu.bytes(codes, tokens * pitch(cols));
        let found: Vec<u8> = rows.chunks(pitch(cols)).flat_map(|row| row[..cols].to_vec()).collect();
        assert_eq!(pitched(&found, cols, UNTOUCHED), rows, "nothing is written between rows of {cols}");
        let off: Vec<(u8, u8)> =
            found.iter().copied().zip(expected[0].iter().copied()).filter(|(a, b)| a != b).collect();
        let neighbours = |(a, b): &(u8, u8)| (a & 0x7f).abs_diff(b & 0x7f) <= 1 && a & 0x80 == b & 0x80;
        assert!(off.iter().all(neighbours), "{cols}: {off:?}");
        assert!(off.len() * 1000 <= found.len(), "{cols}: {} of {} codes differ", off.len(), found.len());
        assert!(found.iter().all(|code| e4m3::decode(*code).is_finite()));
    }
}

/// Gates so large that their exponentials are infinite or zero give themselves or zeros, never NaN.
#[test]
fn swiglu_of_large_gates_is_finite() {
    let Some(mut gpu) = device() else { return };
    let gates: Vec<f32> = (0..64).map(|i| (i as f32 - 31.5) * 6.5).collect();
    let ups: Vec<f32> = (0..64).map(|i| 1.0 + i as f32 / 64.0).collect();
    let row = |g: &f32, u: &f32| (f64::from(*g) / (1.0 + f64::from(-g).exp())) as f32 * u;
    let products: Vec<f32> = gates.iter().zip(&ups).map(|(g, u)| row(g, u)).collect();
    let ty = fireq_ir::Type::f32(1, 64).with_format(&fireq_ir::Format::activation());
    let expected = parts(&fireq_ir::interp::Tensor::filled(&ty, products)).remove(0);
    let (codes, scales) = (gpu.space("codes", 64), gpu.space("scales", 4));
    let params = params::SwigluQuantize { x: gpu.put_f32("x", &[gates, ups].concat()), codes, scales };
    gpu.launch(&swiglu_quantize(64).unwrap(), 1, 0, &params);
    for (found, wanted) in gpu.bytes(codes, 64).into_iter().zip(expected) {
        let near = (found & 0x7f).abs_diff(wanted & 0x7f) <= 1;
        assert!(near && e4m3::decode(found).is_finite(), "{found} is not {wanted}");
    }
}

pub fn dtype_of(name: &str) -> DType {
    match name {
        "bf16" => DType::BF16,
        "f16" => DType::F16,
        "e4m3<row:f32>" => DType::E4M3,
        _ => DType::F32,
    }
}
