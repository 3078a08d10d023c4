//! Every kind of unit, in shapes with and without tails.

use std::time::Instant;

use fireq_codegen::cuda::nvrtc::{NvrtcFailure, compile, version};
use fireq_ir::{DType, Fit};
use fireq_kernels::cuda::{
    Elementwise, Qkv, Unit, argmax, elementwise, gather, logits, norm_quantize, quantize, rms_norm,
    rope_table, swiglu_quantize,
};

/// Units of a Llama-3-8B, and of shapes whose rows are no multiples of anything.
pub fn units() -> Vec<Unit> {
    let qkv = |q_heads, kv_heads, head, k_fit, v_fit, scales| {
        Qkv { q_heads, kv_heads, head, k_fit, v_fit, scales }.unit().unwrap()
    };
    vec![
        gather(4096, DType::BF16).unwrap(),
        gather(37, DType::F16).unwrap(),
        gather(4096, DType::F32).unwrap(),
        rms_norm(4096, DType::BF16).unwrap(),
        rms_norm(128, DType::BF16).unwrap(),
        rms_norm(50, DType::F32).unwrap(),
        norm_quantize(4096, DType::BF16).unwrap(),
        norm_quantize(8192, DType::F32).unwrap(),
        norm_quantize(100, DType::BF16).unwrap(),
        norm_quantize(37, DType::BF16).unwrap(),
        quantize(4096).unwrap(),
        swiglu_quantize(14336).unwrap(),
        swiglu_quantize(28672).unwrap(),
        swiglu_quantize(172).unwrap(),
        elementwise(Elementwise::Add, 4096, DType::F32).unwrap(),
        elementwise(Elementwise::Mul, 37, DType::F32).unwrap(),
        elementwise(Elementwise::Bias, 896, DType::BF16).unwrap(),
        elementwise(Elementwise::Scale, 64, DType::F32).unwrap(),
        rope_table(128).unwrap(),
        qkv(32, 8, 128, Fit::Clipped, Fit::Clipped, DType::E4M3),
        qkv(14, 2, 64, Fit::Signed, Fit::Absmax, DType::E4M3),
        qkv(4, 4, 256, Fit::Absmax, Fit::Signed, DType::E4M3),
        qkv(3, 1, 80, Fit::Clipped, Fit::Clipped, DType::BF16),
        qkv(3, 1, 20, Fit::Clipped, Fit::Clipped, DType::E4M3),
        logits(4096, 128_256, DType::BF16, 1).unwrap(),
        logits(4096, 128_256, DType::BF16, 8).unwrap(),
        logits(37, 33, DType::BF16, 8).unwrap(),
        argmax(128_256),
        argmax(33),
    ]
}

/// False, and says so, where there is no NVRTC.
pub fn nvrtc_is_here() -> bool {
    match version() {
        Ok(_) => true,
        Err(NvrtcFailure::Missing) => {
            eprintln!("skipped: GPU kernels: no NVRTC (cargo xtask setup)");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_unit_compiles_in_a_second() {
    if !nvrtc_is_here() {
        return;
    }
    for unit in units() {
        let text = unit.source().unwrap();
        let began = Instant::now();
        compile(&unit.name, &text).unwrap_or_else(|e| panic!("{e}"));
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{}: {seconds:.3} s", unit.name);
        assert!(seconds < 1.0, "{} takes {seconds:.1} s", unit.name);
    }
}
