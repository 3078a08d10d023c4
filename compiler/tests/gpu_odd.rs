//! Models of odd sizes: every launch has a kernel, whatever the number of tokens.

use std::fs;

use fireq::import::{ImportOptions, import_shape};
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::cubin::resources;
use fireq_codegen::cuda::generate;
use fireq_codegen::cuda::nvrtc::version;
use fireq_codegen::cuda::select::{Choice, select};
use fireq_ir::Format;
use fireq_ir::plan::{Kernel, Plan, Storage, lower_fused, parse_plan, parts, print_plan, verify_plan};
use fireq_kernels::cuda::tuning::Tuning;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Hidden channels, those of the feed-forward part, tokens of the vocabulary; query heads and their channels.
type Sizes = ([usize; 3], [usize; 2]);

const ODD: [Sizes; 8] = [
    ([576, 172, 257], [12, 48]),
    ([576, 172, 257], [6, 96]),
    ([480, 172, 257], [6, 80]),
    ([300, 172, 257], [3, 100]),
    ([130, 171, 257], [3, 36]),
    ([257, 171, 33], [3, 48]),
    ([1, 1, 1], [3, 4]),
    ([256, 192, 257], [3, 80]),
];

/// A Llama or Qwen with three query heads for each of keys.
fn config(kind: &str, ([hidden, ffn, vocabulary], [heads, head]): Sizes) -> Value {
    let architecture = format!("{}{}ForCausalLM", kind[..1].to_uppercase(), &kind[1..]);
    json!({
        "architectures": [architecture], "model_type": kind, "vocab_size": vocabulary, "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": 2, "num_attention_heads": heads,
        "num_key_value_heads": heads / 3, "head_dim": head, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "bos_token_id": 0, "eos_token_id": 0,
    })
}

/// The plan for GPUs of a model of this shape, with weights in groups of `group`.
fn plan(config: &Value, group: usize) -> Plan {
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("config.json"), config.to_string()).unwrap();
    let mut graph = import_shape(temp.path(), ImportOptions::default()).unwrap().graph;
    let weights = format!("quantize-weights{{group={group}}}");
    let rtn = fireq_passes::named_pipeline("rtn").unwrap();
    assert!(rtn.contains("quantize-weights"), "{rtn}");
    let all = format!("fold,{},fuse", rtn.replace("quantize-weights", &weights));
    fireq_passes::pipeline(&all).unwrap().run(&mut graph).unwrap();
    lower_fused(&graph).unwrap().plan
}

fn reasons<'a>(choices: &'a [Choice], name: &str) -> Vec<&'a str> {
    let named = choices.iter().filter(|choice| choice.kernel.name.starts_with(name));
    named.map(|choice| choice.kernel.reason.as_str()).collect()
}

#[test]
fn every_launch_of_an_odd_model_has_a_kernel() {
    for sizes in ODD {
        for (kind, group) in [("llama", 128), ("llama", 64), ("qwen2", 128), ("qwen3", 64)] {
            let plan = plan(&config(kind, sizes), group);
            let choices = select(&plan, &Tuning::default()).choices;
            let missing: Vec<_> = choices.iter().filter(|choice| choice.unit.is_none()).collect();
            assert!(missing.is_empty(), "{kind} of {sizes:?} in groups of {group}: {missing:#?}");
            for launch in plan.launches.iter().filter(|launch| !matches!(launch.kernel, Kernel::Slice { .. }))
            {
                let serves =
                    |choice: &Choice| choice.kernel.launches.iter().any(|symbol| **symbol == *launch.symbol);
                assert!(choices.iter().any(serves), "{} of {kind} of {sizes:?} runs nothing", launch.symbol);
            }
            verify_plan(&plan).unwrap();
            assert_eq!(parse_plan(&print_plan(&plan)).unwrap(), plan);
        }
    }
}

/// Gates come in 64 where a product's epilogue makes one of two: others leave them and their ups apart, and say so.
#[test]
fn gates_that_are_no_multiple_of_64_come_apart() {
    for (sizes, apart) in [(ODD[0], true), (ODD[7], false)] {
        let choices = select(&plan(&config("llama", sizes), 128), &Tuning::default()).choices;
        let gated = reasons(&choices, "linear_swiglu");
        let behind = reasons(&choices, "swiglu_quantize");
        assert_eq!((gated.is_empty(), behind.len()), (apart, usize::from(apart)), "{sizes:?}");
        let said = "gates and ups come apart: no kernel: 172 gates: multiples of 64 do";
        assert!(behind.iter().all(|reason| reason.contains(said)), "{behind:?}");
    }
}

/// Tensor cores of single tokens have 16 columns for query heads: more are left to prefill.
#[test]
fn more_query_heads_than_products_have_columns_are_left_to_prefill() {
    let mut config = config("llama", ([576, 172, 257], [51, 16]));
    config["num_key_value_heads"] = json!(3);
    let choices = select(&plan(&config, 128), &Tuning::default()).choices;
    assert!(choices.iter().all(|choice| choice.unit.is_some()), "{choices:#?}");
    assert!(reasons(&choices, "decode_attention").is_empty());
    for name in ["gather_pages", "prefill"] {
        let of = choices.iter().find(|choice| choice.kernel.name.starts_with(name)).unwrap();
        assert!([1, 5, 1000].into_iter().all(|tokens| of.kernel.tokens.unwrap().holds(tokens)), "{name}");
    }
    let reasons = reasons(&choices, "prefill");
    assert_eq!(reasons.len(), 2, "of few keys and of many");
    for reason in reasons {
        assert!(reason.contains("single tokens, too: 51 query heads over 3 of keys: up to 16"), "{reason}");
    }
}

/// Rows of tokens, and heads of queries, begin at multiples of 16 bytes in the plan, as in the kernels that write and read them.
#[test]
fn codes_of_odd_rows_have_room_up_to_16_bytes() {
    let plan = plan(&config("llama", ODD[4]), 128);
    let row_bytes = |format: &Format| {
        let all = plan.buffers.iter().filter(|buffer| buffer.ty.format() == *format);
        let bytes = all.map(|buffer| {
            assert_eq!(buffer.storage, Storage::Pitched);
            let cols = buffer.ty.shape.cols().fixed().unwrap();
            (cols, parts(&buffer.ty, buffer.storage).unwrap()[0].row_bytes())
        });
        bytes.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(row_bytes(&Format::activation()), [(108, 112), (130, 144), (171, 176)].into());
    assert_eq!(row_bytes(&Format::query(36)), [(3 * 36, 3 * 48)].into());
}

#[test]
fn kernels_of_odd_models_compile() {
    if version().is_err() {
        eprintln!("skipped: GPU kernels: no NVRTC (cargo xtask setup)");
        return;
    }
    let temp = TempDir::new().unwrap();
    for (n, sizes) in [ODD[0], ODD[4]].into_iter().enumerate() {
        let plan = plan(&config("qwen2", sizes), 128);
        let out = temp.path().join(n.to_string());
        let code = generate(&plan, &Tuning::default(), &Cache::of_user(), &out).unwrap();
        assert_eq!(code.missing().count(), 0, "{sizes:?}");
        for kernel in &code.kernels {
            let cubin = fs::read(out.join(format!("kernels/{}.cubin", kernel.name))).unwrap();
            assert_eq!(resources(&cubin, &kernel.name).unwrap().local, 0, "{} spills", kernel.name);
        }
    }
}
