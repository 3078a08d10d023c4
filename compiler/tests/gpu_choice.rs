//! Which kernels whole models get, and how long they take to compile.

use std::fs;
use std::time::Instant;

use fireq::import::{ImportOptions, import_shape};
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::generate;
use fireq_codegen::cuda::nvrtc::version;
use fireq_codegen::cuda::select::{Choice, select};

use fireq_ir::artifact::{CudaKernel, TokenRange};
use fireq_ir::plan::{
    Kernel, Place, Plan, Storage, arena_bytes, lower_fused, parse_plan, print_plan, verify_plan,
};
use fireq_kernels::cuda::tuning::{Method, Tuning, Winner};
use fireq_kernels::cuda::{Addend, Linear, LinearFp8, Output, cost, cost_fp8};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The shape of Meta-Llama-3-8B.
fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 500000.0,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 128_000, "eos_token_id": 128_001,
    })
}

/// The plan for GPUs of a model of this shape.
fn plan(config: &Value, pipeline: &str) -> Plan {
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("config.json"), config.to_string()).unwrap();
    let mut graph = import_shape(temp.path(), ImportOptions::default()).unwrap().graph;
    fireq_passes::pipeline(pipeline).unwrap().run(&mut graph).unwrap();
    lower_fused(&graph).unwrap().plan
}

#[test]
fn every_launch_has_a_kernel_in_models_that_import_knows() {
    let mut qwen2 = llama();
    qwen2["model_type"] = json!("qwen2");
    qwen2["architectures"] = json!(["Qwen2ForCausalLM"]);
    let mut qwen3 = llama();
    qwen3["model_type"] = json!("qwen3");
    qwen3["architectures"] = json!(["Qwen3ForCausalLM"]);
    qwen3["head_dim"] = json!(128);
    for (config, extra) in [
        (llama(), None),
        (qwen2, Some("linear_bias_bf16_g128_t8_w2_s4x4_k2")),
        (qwen3, Some("rms_norm_bf16_128")),
    ] {
        let plan = plan(&config, "full");
        let choices = select(&plan, &Tuning::default()).choices;
        let missing = choices.iter().find(|choice| choice.unit.is_none());
        assert_eq!(missing, None, "{}", config["model_type"]);
        attention_is_there_for_every_number_of_tokens(&choices);
        if let Some(extra) = extra {
            assert!(choices.iter().any(|choice| choice.kernel.name == extra), "{extra}");
        }
        assert_eq!(parse_plan(&print_plan(&plan)).unwrap(), plan);
        // Slices are read where they are: what they are slices of is not overwritten before.
        verify_plan(&plan).unwrap();
    }
}

/// What a GPU would have to be quickest with: decoding weights of a Llama-3-8B once for more than 256 tokens.
fn decoding() -> Tuning {
    let gated = Linear { output: Output::Swiglu, ..Linear::plain(28672, 4096, 128) };
    let down = Linear { addend: Addend::Residual, ..Linear::plain(4096, 14336, 128) };
    let winners = |linear: Linear| {
        let methods = [
            (256, Method::Records(cost::choose(&linear, 256).0)),
            (4096, Method::Workspace(cost_fp8::choose(&LinearFp8::from(linear), 4096).0)),
        ];
        let winner = |(tokens, method)| Winner { tokens, method, seconds: 1e-4, model: 1e-4, tried: 2 };
        (linear.to_string(), methods.map(winner).to_vec())
    };
    Tuning { device: "a GPU".into(), products: [gated, down].map(winners).into() }
}

/// For many tokens, weights may be decoded once, right in front of the product; gated ones are quantized behind.
#[test]
fn weights_are_decoded_in_front_of_products_of_many_tokens() {
    let choices = select(&plan(&llama(), "full"), &decoding()).choices;
    let of = |kernel: &CudaKernel| (kernel.launches.clone(), kernel.tokens);
    let products = choices.windows(2).filter(|pair| pair[1].kernel.name.starts_with("linear_fp8"));
    for pair in products {
        let [decoder, product] = [&pair[0].kernel, &pair[1].kernel];
        assert!(decoder.name.starts_with("decode_weight_g128"), "{decoder:?} is in front of {product:?}");
        assert_eq!(of(decoder), of(product));
        assert!(product.tokens.is_some_and(|range| range.from > 256 && range.to.is_none()), "{product:?}");
        assert!(product.reason.contains("the quickest of 2 on a GPU"), "{product:?}");
    }
    let gated = choices.iter().position(|c| c.kernel.name.starts_with("linear_fp8_swiglu")).unwrap();
    assert!(choices[gated].kernel.tokens.unwrap().holds(4096));
    assert_eq!(choices[gated + 1].kernel.name, "quantize_14336");
}

/// Single tokens read pages; the tokens of a prefill, keys and values that were gathered from them. Sums of long rows are
/// promoted.
#[track_caller]
fn attention_is_there_for_every_number_of_tokens(choices: &[Choice]) {
    let single = ["decode_attention_d128_q8_p64", "combine_d128"];
    for (tokens, keys, expected) in [
        (1, 5000, single),
        (4, 4, single),
        (5, 1024, ["gather_pages_d128_p64", "prefill_d128_f32_s6_f3_c2"]),
        (5, 1025, ["gather_pages_d128_p64", "prefill_d128_f32_s6_f2_p_c2"]),
        (10_000, 10_000, ["gather_pages_d128_p64", "prefill_d128_f32_s6_f2_p_c2"]),
    ] {
        let of_attention = |kernel: &&CudaKernel| kernel.launches.iter().any(|l| l.starts_with("attention"));
        let holds = |range: Option<TokenRange>, n| range.is_none_or(|range| range.holds(n));
        let serves = |kernel: &&CudaKernel| holds(kernel.tokens, tokens) && holds(kernel.keys, keys);
        let found = choices.iter().map(|choice| &choice.kernel).filter(of_attention).filter(serves);
        assert_eq!(found.map(|kernel| &*kernel.name).collect::<Vec<_>>(), expected, "{tokens} of {keys}");
    }
    let reasons = choices.iter().map(|choice| &choice.kernel).filter(|kernel| kernel.keys.is_some());
    assert!(reasons.clone().count() == 2 && reasons.clone().all(|k| k.reason.contains("the cost model")));
}

#[test]
fn attention_over_caches_that_are_not_quantized_is_refused_with_the_reason() {
    let plan = plan(&llama(), "quantize-weights,quantize-activations");
    let choices = select(&plan, &Tuning::default()).choices;
    let attention = choices.iter().find(|choice| choice.kernel.name.starts_with("attention")).unwrap();
    assert_eq!((&attention.unit, attention.kernel.compiled), (&None, false));
    let reason = &attention.kernel.reason;
    assert!(reason.contains("not rotated, quantized and appended as FireQ has it"), "{reason}");
}

#[test]
fn what_is_sliced_outlives_its_slices() {
    let plan = plan(&llama(), "full");
    let range = |buffer: usize| {
        let ty = &plan.buffers[buffer].ty;
        match plan.buffers[buffer].place {
            Place::Arena { offset } => offset..offset + arena_bytes(ty, Storage::Plain).unwrap(),
            _ => 0..0,
        }
    };
    let mut slices = 0;
    for (at, slice) in
        plan.launches.iter().enumerate().filter(|(_, l)| matches!(l.kernel, Kernel::Slice { .. }))
    {
        let whole = range(slice.inputs[0]);
        assert!(!whole.is_empty());
        let last = plan.launches.iter().rposition(|l| l.inputs.contains(&slice.output)).unwrap();
        for launch in &plan.launches[at..=last] {
            let written = range(launch.output);
            let apart = written.end <= whole.start || whole.end <= written.start;
            assert!(apart, "{} overwrites what {} slices", launch.symbol, slice.symbol);
        }
        slices += 1;
    }
    assert_eq!(slices, 3 * 32);
}

#[test]
fn kernels_of_a_whole_model_compile_in_seconds_and_come_from_the_cache_at_once() {
    if version().is_err() {
        eprintln!("skipped: GPU kernels: no NVRTC (cargo xtask setup)");
        return;
    }
    let temp = TempDir::new().unwrap();
    let plan = plan(&llama(), "full");
    let cache = Cache::new(Some(temp.path().join("cache")));
    let seconds = |out: &str| {
        let began = Instant::now();
        let code = generate(&plan, &Tuning::default(), &cache, &temp.path().join(out)).unwrap();
        (code, began.elapsed().as_secs_f64())
    };
    let ((first, cold), (second, warm)) = (seconds("first"), seconds("second"));
    eprintln!("{} kernels: {cold:.1} s, from the cache {warm:.2} s", first.kernels.len());
    assert_eq!(first, second);
    assert!(cold < 30.0 && warm < 1.0, "{cold:.1} s, then {warm:.2} s");
    let names: Vec<&str> = first.kernels.iter().filter(|k| k.compiled).map(|k| k.name.as_str()).collect();
    for name in [
        "linear_g128_t128_w2_s4x2_k1_p4",
        "norm_quantize_bf16_4096",
        "linear_swiglu_g128_t128_w2_s3x2_k1_c2_p4_b11",
        "quantize_14336",
        "qkv_32x8x128_absmax_absmax_p64",
        "decode_attention_d128_q8_p64",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}
