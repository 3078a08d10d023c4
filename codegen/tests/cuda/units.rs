//! Every kind of unit, in shapes with and without tails.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::nvrtc::{Compiled, NvrtcFailure, compile, version};
use fireq_ir::{DType, Fit};
use fireq_kernels::cuda::cost::regimes;
use fireq_kernels::cuda::{
    Addend, DecodeAttention, Elementwise, Linear, LinearConfig, Output, Qkv, Unit, elementwise, gather,
    gather_pages, logits, norm_quantize, quantize, rms_norm, rope_table, sample, swiglu_quantize,
};
use fireq_kernels::pages::Pages;

use super::{linear_fp8, odd, prefill};

/// Units of a Llama-3-8B, and of shapes whose rows are no multiples of anything.
pub fn units() -> Vec<Unit> {
    let qkv = |q_heads, kv_heads, head, k_fit, v_fit, page| {
        Qkv { q_heads, kv_heads, head, k_fit, v_fit, page }.unit().unwrap()
    };
    let rows = vec![
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
        qkv(32, 8, 128, Fit::Clipped, Fit::Clipped, 64),
        qkv(14, 2, 64, Fit::Signed, Fit::Absmax, 64),
        qkv(4, 4, 256, Fit::Absmax, Fit::Signed, 128),
        qkv(3, 1, 80, Fit::Clipped, Fit::Clipped, 64),
        qkv(3, 1, 20, Fit::Clipped, Fit::Clipped, 64),
        gather_pages(Pages { kv_heads: 8, head: 128, keys: 64 }).unwrap(),
        gather_pages(Pages { kv_heads: 1, head: 80, keys: 128 }).unwrap(),
        logits(4096, 128_256, DType::BF16, 1).unwrap(),
        logits(4096, 128_256, DType::BF16, 8).unwrap(),
        logits(37, 33, DType::BF16, 8).unwrap(),
        logits(3072, 128_256, DType::E4M3, 1).unwrap(),
        logits(3072, 128_256, DType::E4M3, 8).unwrap(),
        logits(37, 33, DType::E4M3, 8).unwrap(),
        sample(128_256),
        sample(33),
        Linear::plain(4096, 4096, 128).decode_unit(String::new()).unwrap(),
        Linear::plain(132, 400, 64).decode_unit(String::new()).unwrap(),
    ];
    let linears = linears().into_iter().map(|(linear, config)| linear.unit(&config, String::new()).unwrap());
    let decoded = linear_fp8::linears().iter().map(linear_fp8::unit).collect::<Vec<_>>();
    let attention = attention().into_iter().flat_map(|of| [of.unit().unwrap(), of.combine().unwrap()]);
    let prefills = prefill::attentions().iter().map(prefill::unit).collect::<Vec<_>>();
    let odd = odd::units();
    rows.into_iter().chain(linears).chain(decoded).chain(attention).chain(prefills).chain(odd).collect()
}

/// Decode attention of Llama-3-8B, and with few or many channels and query heads.
pub fn attention() -> Vec<DecodeAttention> {
    let of = |heads, kv_heads, head, page| DecodeAttention { heads, kv_heads, head, page };
    vec![of(32, 8, 128, 64), of(14, 2, 64, 64), of(16, 1, 128, 128), of(8, 4, 256, 64), of(16, 1, 64, 64)]
}

/// Products as the cost model has them for Llama-3-8B, and in groups of 64 and with a bias.
pub fn linears() -> Vec<(Linear, LinearConfig)> {
    let linear = |channels, cols, group, addend| Linear { addend, ..Linear::plain(channels, cols, group) };
    let swiglu = |group| Linear { output: Output::Swiglu, ..Linear::plain(28672, 4096, group) };
    let to_bf16 = |addend| Linear { addend, output: Output::Bf16, ..Linear::plain(6144, 4096, 128) };
    let shipped = [
        linear(6144, 4096, 128, Addend::Nothing),
        linear(4096, 4096, 128, Addend::Residual),
        swiglu(128),
        linear(4096, 14336, 128, Addend::Residual),
    ];
    let chosen = shipped.iter().flat_map(|of| regimes(of).into_iter().map(|regime| (*of, regime.config)));
    let promoted = |[tokens, warpgroups, stages, steps, split]: [usize; 5], promotion| LinearConfig {
        tokens,
        warpgroups,
        stages,
        steps,
        split,
        cluster: 1,
        promotion,
        band: 0,
    };
    let config = |tile| promoted(tile, 0);
    let in_bands = |config: LinearConfig| config.in_bands().unwrap();
    let shared = |cluster, config| LinearConfig { cluster, ..config };
    let [nothing, residual, bias] = [Addend::Nothing, Addend::Residual, Addend::Bias(DType::F32)];
    let others = [
        (linear(4096, 4096, 64, bias), config([16, 2, 3, 2, 2])),
        (linear(4096, 4096, 64, nothing), config([128, 2, 2, 2, 1])),
        (linear(4096, 4096, 64, residual), config([256, 2, 2, 2, 1])),
        (linear(4096, 4096, 128, bias), config([256, 1, 3, 2, 1])),
        (linear(4096, 4096, 128, nothing), config([8, 2, 4, 2, 8])),
        (linear(4096, 4096, 128, nothing), config([32, 1, 3, 4, 1])),
        (linear(4096, 4096, 64, nothing), config([8, 1, 4, 4, 1])),
        (linear(28672, 4096, 128, nothing), config([256, 2, 2, 2, 1])),
        (swiglu(64), promoted([128, 2, 2, 4, 1], 4)),
        (swiglu(128), config([16, 2, 4, 2, 2])),
        (to_bf16(Addend::Nothing), config([8, 2, 4, 2, 4])),
        (to_bf16(Addend::Nothing), promoted([128, 2, 4, 2, 1], 4)),
        (to_bf16(Addend::Bias(DType::BF16)), config([16, 1, 4, 2, 4])),
        (linear(6144, 4096, 128, Addend::Bias(DType::BF16)), config([8, 1, 4, 2, 4])),
        (linear(4096, 4096, 128, nothing), promoted([8, 1, 4, 2, 1], 1)),
        (linear(4096, 4096, 128, nothing), promoted([8, 1, 4, 2, 1], 4)),
        (linear(4096, 4096, 128, residual), promoted([16, 2, 3, 2, 1], 4)),
        (linear(4096, 4096, 128, residual), promoted([32, 2, 3, 2, 2], 4)),
        (linear(4096, 4096, 128, residual), promoted([64, 2, 2, 2, 1], 1)),
        (linear(4096, 4096, 64, nothing), promoted([64, 2, 2, 2, 1], 4)),
        (linear(4096, 4096, 128, bias), promoted([128, 1, 2, 2, 1], 4)),
        (linear(4096, 4096, 128, residual), promoted([128, 2, 2, 4, 1], 4)),
        (linear(4096, 4096, 128, residual), shared(2, promoted([128, 2, 4, 2, 1], 4))),
        (linear(4096, 4096, 128, bias), shared(2, config([256, 2, 2, 2, 1]))),
        (linear(4096, 4096, 64, nothing), shared(4, config([16, 1, 3, 4, 2]))),
        (linear(4096, 4096, 128, residual), in_bands(promoted([128, 2, 3, 2, 1], 4))),
        (linear(4096, 4096, 64, bias), in_bands(shared(2, promoted([128, 2, 3, 2, 1], 4)))),
        (swiglu(128), in_bands(shared(2, promoted([128, 2, 3, 2, 1], 4)))),
        (to_bf16(Addend::Residual), in_bands(shared(2, promoted([128, 2, 3, 2, 1], 4)))),
        (swiglu(128), shared(2, promoted([64, 2, 3, 4, 1], 4))),
    ];
    let name = |(linear, config): &(Linear, LinearConfig)| linear.unit(config, String::new()).unwrap().name;
    let by_name: BTreeMap<String, _> = chosen.chain(others).map(|case| (name(&case), case)).collect();
    by_name.into_values().collect()
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

/// Every unit, compiled; `None` where there is no NVRTC.
pub fn compiled() -> Option<&'static [(Unit, Compiled)]> {
    static COMPILED: OnceLock<Vec<(Unit, Compiled)>> = OnceLock::new();
    // What others of these tests compiled is found: each of them runs in a process of its own.
    let cache = Cache::of_user();
    let one = |unit: Unit| {
        let compiled = cache.compile(&unit.name, &unit.source().unwrap()).unwrap_or_else(|e| panic!("{e}"));
        (unit, compiled)
    };
    nvrtc_is_here().then(|| &COMPILED.get_or_init(|| units().into_iter().map(one).collect())[..])
}

#[test]
fn the_same_unit_gives_the_same_bytes() {
    let Some(units) = compiled() else { return };
    for (unit, first) in &units[..3] {
        assert!(compile(&unit.name, &unit.source().unwrap()).unwrap() == *first, "{}", unit.name);
    }
}

#[test]
fn what_nvrtc_refuses_comes_with_its_reason_and_place() {
    if !nvrtc_is_here() {
        return;
    }
    let text = "#line 7 \"kernel/wrong.cuh\"\nextern \"C\" __global__ void wrong() { return 1; }\n";
    let error = compile("wrong", text).unwrap_err().to_string();
    assert!(error.starts_with("NVRTC refuses `wrong`:\nkernel/wrong.cuh(7): error"), "{error}");
}
