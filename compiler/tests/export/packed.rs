//! Packed weights, read back by arithmetic on their words, are those of the graph.

use std::path::Path;

use fireq::import::import;
use fireq_ir::expression::leaf_name;
use fireq_ir::interp::{Data, eval_constant};
use fireq_ir::quant::Quantized;
use fireq_ir::{Graph, Op};
use safetensors::Dtype;
use serde_json::json;

use super::{DEMO, Place, contents, floats};
use crate::tiny::{Stored, Tensors, random};

const PASSES: &str = "quantize-weights{fit=signed},quantize-activations";

/// The INT4 weights of a quantized model, by the modules they belong to.
fn quantized(dir: &str, passes: &str) -> Vec<(String, Quantized)> {
    let mut graph: Graph = import(Path::new(dir)).unwrap().graph;
    fireq_passes::pipeline(passes).unwrap().run(&mut graph).unwrap();
    let linears = graph.schedule().into_iter().filter(|value| *graph.op(*value) == Op::Linear);
    let weights = linears.filter_map(|linear| {
        let weight = graph.operands(linear)[1];
        let module = leaf_name(&graph, weight).strip_suffix(".weight")?.to_string();
        match eval_constant(&graph, weight).unwrap().data {
            Data::Quant(q) => Some((module, q)),
            _ => None,
        }
    });
    weights.collect()
}

/// Codes of a packed tensor: eight to a word, the first in the lowest bits, eight more than they are.
fn codes(packed: &Stored, cols: usize) -> Vec<i8> {
    assert_eq!((packed.dtype, packed.shape[1]), (Dtype::I32, cols.div_ceil(8)));
    let words = packed.bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    words.flat_map(|word| (0..8).map(move |n| (word >> (4 * n) & 15) as i8 - 8)).collect()
}

/// Compares a checkpoint in f32, with groups of `group(cols)`, with the graph it was made of.
#[track_caller]
fn same(found: &Tensors, wanted: &[(String, Quantized)], group: impl Fn(usize) -> usize) {
    for (module, q) in wanted {
        let part = |part: &str| &found[&format!("{module}.{part}")];
        assert!(codes(part("weight_packed"), q.cols) == q.codes, "{module}");
        let shape: Vec<i64> = part("weight_shape")
            .bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(shape, [q.rows() as i64, q.cols as i64], "{module}");
        let (scales, group) = (floats(part("weight_scale")), group(q.cols));
        assert_eq!(part("weight_scale").shape, [q.rows(), q.cols / group], "{module}");
        let (extent, count) = (q.format.scheme.0[0].extent(q.cols), q.scales[0].len() / q.rows());
        for (n, scale) in scales.iter().enumerate() {
            let (row, col) = (n / (q.cols / group), n % (q.cols / group) * group);
            assert_eq!(*scale, q.scales[0][row * count + col / extent] * q.scales[1][row], "{module}");
        }
    }
}

#[test]
fn the_demo_models_weights_are_those_of_the_graph() {
    let place = Place::new();
    let wanted = quantized(DEMO, PASSES);
    assert_eq!(wanted.len(), 28);
    assert!(wanted.iter().any(|(_, q)| q.scales[0].iter().any(|scale| *scale < 0.0)), "scales of both signs");
    let said = place.export(DEMO, "compressed-tensors", "packed", &["--passes", PASSES, "--dtype", "f32"]);
    same(&place.tensors("packed"), &wanted, |_| 128);
    assert!(said.contains("linears: 28 INT4 for FP8 inputs, 1 f32 numbers\n"), "{said}");
    // The embedding is the head's, and no second copy is written.
    assert_eq!(place.tensors("packed").len(), 3 * 28 + 1 + 9);
    assert!(!place.tensors("packed").contains_key("lm_head.weight"));
    insta::assert_snapshot!(std::fs::read_to_string(place.path("packed/config.json")).unwrap());
    let files: Vec<String> = contents(&place.path("packed")).into_keys().collect();
    let expected = [
        "config.json",
        "fireq-export.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(files, expected);
}

/// Rows of 64 and of 96 columns: groups of 128 end with them.
#[test]
fn groups_that_rows_cut_short_are_written_as_smaller_ones() {
    let place = Place::new();
    let model = place.model(|_, _| ());
    let wanted = quantized(&model, PASSES);
    let said = place.export(&model, "compressed-tensors", "packed", &["--passes", PASSES, "--dtype", "f32"]);
    same(&place.tensors("packed"), &wanted, |cols| if cols == 96 { 32 } else { 64 });
    assert!(said.contains("linears: 14 INT4 for f32 inputs, 1 f32 numbers\n"), "{said}");
    let why = "0.mlp.down_proj, 0.mlp.gate_proj, 0.mlp.up_proj and 11 more: inputs stay BF16";
    assert!(said.contains(why), "{said}");
    let groups = &place.json("packed/config.json")["quantization_config"]["config_groups"];
    let downs = ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"];
    assert_eq!(groups["group_0"]["targets"], json!(downs));
    assert_eq!(groups["group_0"]["weights"]["group_size"], 32);
    assert_eq!(groups["group_1"]["targets"].as_array().unwrap().len(), 12);
    assert_eq!(groups["group_1"]["weights"]["group_size"], 64);
    assert!(groups.as_object().unwrap().values().all(|group| group["input_activations"].is_null()));
}

#[test]
fn an_artifact_gives_the_checkpoint_of_its_model_whatever_it_is_for() {
    let place = Place::new();
    let model = place.model(|_, _| ());
    // Fused linears hold queries, keys and values, and gate and up, one above the other.
    for (n, passes) in
        [PASSES.to_string(), format!("{PASSES},quantize-kv"), format!("{PASSES},fuse")].iter().enumerate()
    {
        place.export(&model, "compressed-tensors", "of-model", &["--passes", passes]);
        let mut wanted = contents(&place.path("of-model"));
        let artifact = place.compile(&model, &format!("{n}.fireq"), passes, &[]);
        place.export(&artifact, "compressed-tensors", "of-artifact", &[]);
        let mut found = contents(&place.path("of-artifact"));
        // Which pipeline it was is another text for each.
        assert!(wanted.remove("fireq-export.json").is_some() && found.remove("fireq-export.json").is_some());
        assert!(wanted == found, "{passes}");
    }
}

#[test]
fn weights_for_gpus_are_taken_apart_again() {
    if fireq_codegen::cuda::nvrtc::version().is_err() {
        eprintln!("skipped: GPU kernels: no NVRTC (cargo xtask setup)");
        return;
    }
    let place = Place::new();
    place.export(DEMO, "compressed-tensors", "of-model", &["--passes", PASSES]);
    let artifact = place.compile(DEMO, "gpu.fireq", PASSES, &["--target", "sm_90a"]);
    place.export(&artifact, "compressed-tensors", "of-artifact", &[]);
    assert!(contents(&place.path("of-model")) == contents(&place.path("of-artifact")));
}

#[test]
fn biases_and_norms_per_head_are_there() {
    let place = Place::new();
    let model = place.model(|config, tensors| {
        config["architectures"] = json!(["Qwen2ForCausalLM"]);
        config["model_type"] = json!("qwen2");
        for (layer, (name, rows)) in
            [0, 1].into_iter().flat_map(|l| [("q", 64), ("k", 32), ("v", 32)].map(|p| (l, p)))
        {
            tensors.insert(
                format!("model.layers.{layer}.self_attn.{name}_proj.bias"),
                random(rows as u64, &[rows]),
            );
        }
    });
    let artifact = place.compile(&model, "out.fireq", &format!("{PASSES},fuse"), &[]);
    for (source, out) in [(&artifact, "of-artifact"), (&model, "of-model")] {
        let passes: &[&str] = if *source == model { &["--passes", PASSES] } else { &[] };
        place.export(source, "compressed-tensors", out, &[&["--dtype", "f32"], passes].concat());
        let found = place.tensors(out);
        let stored = super::tensors(&place.path("model").join("model.safetensors"));
        for (name, tensor) in stored.iter().filter(|(name, _)| !name.contains("_proj.weight")) {
            assert!(found[name].bytes == tensor.bytes, "{name}");
        }
    }
}
