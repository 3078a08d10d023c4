//! GPU code without a GPU: `compile --target sm_90a`, what the artifact says of it, and what a whole model takes.

mod tiny;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use fireq::import::{ImportOptions, import_shape};
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::generate;
use fireq_codegen::cuda::nvrtc::version;
use fireq_codegen::cuda::select::select;
use fireq_ir::DType;
use fireq_ir::artifact::{CudaCode, CudaKernel, Manifest};
use fireq_ir::plan::{
    Kernel, Place, Plan, Storage, arena_bytes, lower_fused, parse_plan, print_plan, verify_plan,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// False, and says so, where there is no NVRTC.
fn nvrtc_is_here() -> bool {
    let here = version().is_ok();
    if !here {
        eprintln!("skipped: GPU kernels: no NVRTC (cargo xtask setup)");
    }
    here
}

/// The binary with a cache of its own, so that what other runs compiled is not found.
fn fireq(cache: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fireq")).args(args).env("XDG_CACHE_HOME", cache).output().unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_artifact_for_gpus_has_kernels_and_says_which_are_missing() {
    if !nvrtc_is_here() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let (model, out) = (temp.path().join("model"), temp.path().join("out.fireq"));
    tiny::write(&model, &tiny::config(), &tiny::tensors());
    let (model, artifact) = (model.to_str().unwrap(), out.to_str().unwrap());
    let compile = ["compile", model, "-o", artifact, "--recipe", "rtn", "--target", "sm_90a"];
    let said = succeeded(&fireq(temp.path(), &compile));
    assert!(said.contains("none yet for attention, so that it does not run there"), "{said}");

    let manifest = Manifest::parse(&fs::read_to_string(out.join("manifest.json")).unwrap()).unwrap();
    let cuda = manifest.cuda.unwrap();
    assert_eq!((manifest.target, cuda.arch.as_str()), (None, "sm_90a"));
    let missing: Vec<&str> = cuda.missing().map(|kernel| kernel.shape.as_str()).collect();
    assert_eq!(missing, ["attention"]);
    products_are_there_for_every_number_of_tokens(&cuda);
    for kernel in cuda.kernels.iter().filter(|kernel| kernel.compiled) {
        for extension in ["cu", "ptx", "cubin"] {
            let file = format!("kernels/{}.{extension}", kernel.name);
            assert!(out.join(&file).is_file() && manifest.files.contains_key(&file), "{file}");
        }
    }
    let launched: usize = cuda.kernels.iter().filter(|k| k.name.starts_with("qkv")).map(|k| k.count).sum();
    assert_eq!(launched, 6, "queries, keys and values of two layers");

    let listed = succeeded(&fireq(temp.path(), &["inspect", artifact, "--kernels"]));
    for word in [
        "norm_quantize_f32_64\n",
        "registers",
        "no spills",
        "no kernel yet",
        "16-byte loads",
        "cost model",
        "gates and ups come apart: no kernel: 96 gates: multiples of 64 do",
    ] {
        assert!(listed.contains(word), "{word} is not in\n{listed}");
    }
    let json = succeeded(&fireq(temp.path(), &["inspect", artifact, "--kernels", "--json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    let kernels = json["cuda"]["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), cuda.kernels.len());
    let local = |kernel: &Value| kernel["resources"]["local_bytes"].as_u64();
    assert!(
        kernels.iter().filter(|kernel| kernel["compiled"] == true).all(|kernel| local(kernel) == Some(0))
    );

    let manifest = out.join("manifest.json");
    let renamed =
        fs::read_to_string(&manifest).unwrap().replacen("\"name\": \"qkv_", "\"name\": \"../qkv_", 1);
    let listed = fs::write(&manifest, renamed)
        .map(|()| fireq(temp.path(), &["inspect", artifact, "--kernels"]))
        .unwrap();
    let refusal = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert_eq!(listed.status.code(), Some(1));
    assert!(refusal.starts_with("error: the manifest does not list `kernels/../qkv_"), "{refusal}");

    let run = fireq(temp.path(), &["logits", artifact, "--tokens", "1", "-o", "unused.safetensors"]);
    let refusal = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1));
    assert!(refusal.starts_with("error: the artifact is compiled for sm_90a only"), "{refusal}");
}

/// Each launch of a product has one kernel for any number of tokens, in front of which is one that decodes the weight, where the
/// product has it decoded; and gated products have another kernel behind them.
#[track_caller]
fn products_are_there_for_every_number_of_tokens(cuda: &CudaCode) {
    let products: BTreeSet<&str> = cuda
        .kernels
        .iter()
        .flat_map(|kernel| &kernel.launches)
        .filter(|symbol| symbol.starts_with("linear"))
        .map(String::as_str)
        .collect();
    assert_eq!(products.len(), 5, "logits, q/k/v, gate/up, o and down: {products:?}");
    for symbol in products {
        for tokens in [1, 2, 8, 9, 64, 100, 1000, 100_000] {
            let serves = |kernel: &&CudaKernel| {
                let holds = kernel.tokens.is_some_and(|range| range.holds(tokens));
                holds && kernel.launches.iter().any(|launch| launch == symbol)
            };
            let names: Vec<&str> = cuda.kernels.iter().filter(serves).map(|kernel| &*kernel.name).collect();
            match names[..] {
                [product] => assert!(!product.starts_with("linear_fp8"), "{symbol}, {tokens}: {names:?}"),
                [decoder, product] => {
                    assert!(
                        decoder.starts_with("decode_weight_g") && product.starts_with("linear_fp8"),
                        "{names:?}"
                    );
                }
                _ => panic!("{symbol}, {tokens} tokens: {names:?}"),
            }
        }
    }
    let swiglu = cuda.kernels.iter().find(|kernel| kernel.name == "swiglu_quantize_96").unwrap();
    assert_eq!((swiglu.tokens, &swiglu.launches[..]), (None, &["linear_swiglu_0".to_string()][..]));
}

#[test]
#[cfg(feature = "llvm")]
fn an_artifact_for_both_runs_on_the_cpu_as_one_for_the_cpu_does() {
    if !nvrtc_is_here() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_string();
    tiny::write(Path::new(&path("model")), &tiny::config(), &tiny::tensors());
    let logits = |target: &str| {
        let (artifact, out) = (path(&format!("{target}.fireq")), path("logits.safetensors"));
        let compile = ["compile", &path("model"), "-o", &artifact, "--recipe", "rtn", "--target", target];
        succeeded(&fireq(temp.path(), &compile));
        succeeded(&fireq(temp.path(), &["logits", &artifact, "--tokens", "3,1,4", "-o", &out]));
        fs::read(&out).unwrap()
    };
    assert!(logits("cpu") == logits("cpu,sm_90a"));
}

#[test]
fn without_nvrtc_nothing_is_written() {
    let temp = TempDir::new().unwrap();
    let (model, out) = (temp.path().join("model"), temp.path().join("out.fireq"));
    tiny::write(&model, &tiny::config(), &tiny::tensors());
    let args = ["compile", model.to_str().unwrap(), "-o", out.to_str().unwrap(), "--target", "sm_90a"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    let refused = command.args(args).env("FIREQ_CUDA", temp.path().join("nowhere")).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("NVRTC, which compiles GPU kernels, is not installed"), "{message}");
    assert!(message.contains("help: ") && message.contains("nvidia-cuda-nvrtc"), "{message}");
    assert!(!out.exists());
}

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
    let mut graph = import_shape(temp.path(), ImportOptions { rope: DType::F32 }).unwrap().graph;
    fireq_passes::pipeline(pipeline).unwrap().run(&mut graph).unwrap();
    lower_fused(&graph).unwrap().plan
}

#[test]
fn only_attention_has_no_kernel_in_models_that_import_knows() {
    let mut qwen2 = llama();
    qwen2["model_type"] = json!("qwen2");
    qwen2["architectures"] = json!(["Qwen2ForCausalLM"]);
    let mut qwen3 = llama();
    qwen3["model_type"] = json!("qwen3");
    qwen3["architectures"] = json!(["Qwen3ForCausalLM"]);
    qwen3["head_dim"] = json!(128);
    for (config, extra) in [
        (llama(), None),
        (qwen2, Some("linear_bias_bf16_g128_t8_w1_s4x2_k4")),
        (qwen3, Some("rms_norm_bf16_128")),
    ] {
        let plan = plan(&config, "full");
        let choices = select(&plan);
        let mut missing: Vec<&str> =
            choices.iter().filter(|c| c.unit.is_none()).map(|c| c.kernel.shape.as_str()).collect();
        missing.sort_unstable();
        missing.dedup();
        assert_eq!(missing, ["attention"], "{}", config["model_type"]);
        if let Some(extra) = extra {
            assert!(choices.iter().any(|choice| choice.kernel.name == extra), "{extra}");
        }
        assert_eq!(parse_plan(&print_plan(&plan)).unwrap(), plan);
        // Slices are read where they are: what they are slices of is not overwritten before.
        verify_plan(&plan).unwrap();
    }
}

/// For many tokens, weights of a Llama-3-8B's products are decoded once, right in front of the product; gated ones are
/// quantized behind.
#[test]
fn weights_are_decoded_in_front_of_products_of_many_tokens() {
    let choices = select(&plan(&llama(), "full"));
    let of = |kernel: &CudaKernel| (kernel.launches.clone(), kernel.tokens);
    let products = choices.windows(2).filter(|pair| pair[1].kernel.name.starts_with("linear_fp8"));
    for pair in products {
        let [decoder, product] = [&pair[0].kernel, &pair[1].kernel];
        assert!(decoder.name.starts_with("decode_weight_g128"), "{decoder:?} is in front of {product:?}");
        assert_eq!(of(decoder), of(product));
        assert!(product.tokens.is_some_and(|range| range.from > 256 && range.to.is_none()), "{product:?}");
        assert!(product.reason.contains("decoding the weight once"), "{product:?}");
    }
    let gated = choices.iter().position(|c| c.kernel.name.starts_with("linear_fp8_swiglu")).unwrap();
    assert!(choices[gated].kernel.tokens.unwrap().holds(4096));
    assert_eq!(choices[gated + 1].kernel.name, "quantize_14336");
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
    if !nvrtc_is_here() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let plan = plan(&llama(), "full");
    let cache = Cache::new(Some(temp.path().join("cache")));
    let seconds = |out: &str| {
        let began = Instant::now();
        let code = generate(&plan, &cache, &temp.path().join(out)).unwrap();
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
        "linear_swiglu_g128_t128_w2_s4x2_k1_p4",
        "quantize_14336",
        "qkv_32x8x128_absmax_absmax_e4m3",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}
