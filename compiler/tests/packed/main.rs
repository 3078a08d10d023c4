//! Checkpoints whose weights are codes already stand for the numbers that their formats say, row by row and as a whole, and what
//! is wrong with them is said.

#[path = "../tiny/mod.rs"]
mod tiny;

mod fixtures;
mod kept;
mod pack;
mod refused;

use std::collections::BTreeMap;
use std::path::Path;

use fireq::import::{Model, import};
use fireq_ir::interp::eval_constant;
use fireq_ir::plan::{Storage, pack, pack_rows, pieces};
use fireq_ir::verify::verify;
use fireq_ir::{Graph, Op, ValueId};
use pack::Weight;
use safetensors::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::{Stored, Tensors};

/// The linears of the tiny model, packed by `pack`, under this configuration; and the numbers that they stand for.
fn packed(
    quantization: &Value,
    mut pack: impl FnMut(&str, (usize, usize), &mut Tensors) -> Vec<f32>,
) -> (Value, Tensors, BTreeMap<String, Vec<f32>>) {
    let (mut config, mut tensors) = (tiny::config(), tiny::tensors());
    config["quantization_config"] = quantization.clone();
    let linears: Vec<String> = tensors.keys().filter(|name| name.contains("_proj.")).cloned().collect();
    let mut numbers = BTreeMap::new();
    for name in linears {
        let shape = tensors.remove(&name).unwrap().shape;
        let base = name.strip_suffix(".weight").unwrap();
        numbers.insert(name.clone(), pack(base, (shape[0], shape[1]), &mut tensors));
    }
    (config, tensors, numbers)
}

/// Imports a model, whose packed weights are these numbers, in pieces as in one.
#[track_caller]
fn check(label: &str, (config, tensors, numbers): (Value, Tensors, BTreeMap<String, Vec<f32>>)) -> Model {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), &config, &tensors);
    let model = import(dir.path()).unwrap_or_else(|e| panic!("{label}: {e}: {}", e.hint()));
    verify(&model.graph).unwrap();
    assert_eq!(
        model.packed.as_ref().unwrap().weights.keys().collect::<Vec<_>>(),
        numbers.keys().collect::<Vec<_>>()
    );
    for (name, expected) in &numbers {
        let weight = weight(&model.graph, name);
        assert_eq!(&eval_constant(&model.graph, weight).unwrap().to_f32(), expected, "{label}: {name}");
        let whole = pack(&model.graph, weight, Storage::Plain).unwrap();
        let rows = model.graph.ty(weight).shape.rows().fixed().unwrap();
        for rows in [0..1, 3..rows, rows / 2..rows / 2 + 5] {
            let some = pack_rows(&model.graph, weight, Storage::Plain, rows.clone()).unwrap();
            let row = whole[0].0.row_bytes();
            assert_eq!(
                some[0].1[..],
                whole[0].1[rows.start * row..rows.end * row],
                "{label}: {name} {rows:?}"
            );
        }
        assert_eq!(pieces(&model.graph, weight, Storage::Plain).len(), 1, "it is small");
    }
    model
}

/// The value that a linear reads as the weight of this name.
fn weight(graph: &Graph, name: &str) -> ValueId {
    let linears = graph.schedule().into_iter().filter(|v| *graph.op(*v) == Op::Linear);
    let mut weights = linears.map(|linear| graph.operands(linear)[1]);
    weights.find(|weight| *fireq_ir::expression::leaf_name(graph, *weight) == *name).unwrap()
}

/// The tiny model under a configuration and how it is packed.
fn integers(
    quantization: &Value,
    (bits, group, middle, mixed): (u32, usize, bool, bool),
    put: impl Fn(&Weight, &str, &mut Tensors),
) -> (Value, Tensors, BTreeMap<String, Vec<f32>>) {
    let mut seed = 0;
    packed(quantization, |base, shape, tensors| {
        seed += 1;
        let weight = Weight::new(seed, shape, bits, group.min(shape.1), middle, mixed);
        put(&weight, base, tensors);
        weight.numbers()
    })
}

const GROUPS: [i64; 3] = [32, 64, -1];

fn size(group: i64) -> usize {
    usize::try_from(group).unwrap_or(usize::MAX)
}

#[test]
fn gptq_of_every_kind() {
    for (bits, group) in [4, 8].into_iter().flat_map(|bits| GROUPS.map(|group| (bits, group))) {
        for (middle, mixed) in [(true, false), (false, false), (true, true), (false, true)] {
            for (format, less) in [("gptq", true), ("gptq_v2", false)] {
                let config = json!({
                    "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": mixed, "sym": middle,
                    "checkpoint_format": format,
                });
                let label = config.to_string();
                let put =
                    |weight: &Weight, base: &str, tensors: &mut Tensors| weight.gptq(base, less, tensors);
                let model = check(&label, integers(&config, (bits, size(group), middle, mixed), put));
                let packed = model.packed.unwrap();
                for (name, obstacle) in &packed.weights {
                    // Rows of one group have nothing to mix.
                    let several = size(group) < if name.contains("down") { 96 } else { 64 };
                    assert_eq!(
                        obstacle.is_none(),
                        bits == 4 && middle && !(mixed && several),
                        "{label}: {name}"
                    );
                }
            }
        }
    }
}

#[test]
fn awq_with_and_without_zero_points() {
    for group in GROUPS {
        for middle in [true, false] {
            let config = json!({
                "quant_method": "awq", "bits": 4, "group_size": group, "zero_point": !middle, "version": "gemm",
            });
            let model =
                check(&config.to_string(), integers(&config, (4, size(group), middle, false), Weight::awq));
            let packed = model.packed.unwrap();
            let expected = if middle { None } else { Some("zero points") };
            assert!(packed.weights.values().all(|found| *found == expected), "{packed:?}");
        }
    }
}

fn compressed(bits: u32, group: i64, middle: bool) -> Value {
    let (strategy, size) = if group < 0 { ("channel", Value::Null) } else { ("group", json!(group)) };
    json!({
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head", "re:.*embed.*"],
        "kv_cache_scheme": null, "config_groups": { "group_0": {
            "targets": ["Linear"], "output_activations": null, "input_activations": null,
            "weights": { "num_bits": bits, "type": "int", "symmetric": middle, "strategy": strategy, "group_size": size },
        } },
    })
}

#[test]
fn compressed_tensors_of_every_kind() {
    for (bits, group) in [4, 8].into_iter().flat_map(|bits| GROUPS.map(|group| (bits, group))) {
        for (middle, mixed) in [(true, false), (false, false), (false, true)] {
            let config = compressed(bits, group, middle);
            let put =
                |weight: &Weight, base: &str, tensors: &mut Tensors| weight.compressed(base, middle, tensors);
            check(&config.to_string(), integers(&config, (bits, size(group), middle, mixed), put));
        }
    }
}

#[test]
fn fp8_under_scales_of_tensors_rows_and_blocks() {
    let groups = |strategy: &str, block: Value| {
        json!({ "quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": { "group_0": {
            "weights": { "num_bits": 8, "type": "float", "symmetric": true, "strategy": strategy, "block_structure": block },
            "input_activations": { "num_bits": 8, "type": "float", "dynamic": false },
        } } })
    };
    let deepseek =
        json!({ "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 48] });
    let cases = [
        (groups("channel", Value::Null), "weight_scale", (1, usize::MAX)),
        (groups("tensor", Value::Null), "weight_scale", (usize::MAX, usize::MAX)),
        (groups("block", json!([32, 48])), "weight_scale", (32, 48)),
        (deepseek, "weight_scale_inv", (32, 48)),
    ];
    for (config, suffix, block) in cases {
        let mut made = packed(&config, |base, shape, tensors| fp8(base, shape, suffix, block, tensors));
        let scale = Stored { dtype: Dtype::F32, shape: vec![1], bytes: vec![0; 4] };
        made.1.insert("model.layers.0.mlp.up_proj.input_scale".into(), scale);
        check(&config.to_string(), made);
    }
}

fn fp8(
    base: &str,
    (rows, cols): (usize, usize),
    suffix: &str,
    (tall, wide): (usize, usize),
    tensors: &mut Tensors,
) -> Vec<f32> {
    let (tall, wide) = (tall.min(rows), wide.min(cols));
    let (down, across) = (rows.div_ceil(tall), cols.div_ceil(wide));
    // Every code but those that are not numbers.
    let codes: Vec<u8> = (0..rows * cols).map(|i| (i * 7 % 127) as u8 | (i / 3 % 2 * 128) as u8).collect();
    let scales: Vec<f32> = (0..down * across).map(|i| 0.01 + 0.001 * i as f32).collect();
    let shape = if down * across == 1 { vec![1] } else { vec![down, across] };
    let bytes = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    tensors.insert(format!("{base}.{suffix}"), Stored { dtype: Dtype::F32, shape, bytes });
    let number = |i: usize| {
        let (code, scale) = (codes[i], scales[i / cols / tall * across + i % cols / wide]);
        let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let size =
            if exponent == 0 { fraction / 512.0 } else { (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7) };
        (if code >= 128 { -size } else { size }) * scale
    };
    let numbers = (0..rows * cols).map(number).collect();
    tensors.insert(
        format!("{base}.weight"),
        Stored { dtype: Dtype::F8_E4M3, shape: vec![rows, cols], bytes: codes },
    );
    numbers
}

/// Older tools write a file of their own.
#[test]
fn the_configuration_may_stand_beside() {
    for (file, method, keys) in [
        (
            "quantize_config.json",
            "gptq",
            json!({ "bits": 4, "group_size": 32, "desc_act": false, "sym": true }),
        ),
        (
            "quant_config.json",
            "awq",
            json!({ "w_bit": 4, "q_group_size": 32, "zero_point": true, "version": "GEMM" }),
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let put = |weight: &Weight, base: &str, tensors: &mut Tensors| match method {
            "gptq" => weight.gptq(base, true, tensors),
            _ => weight.awq(base, tensors),
        };
        let (config, mut tensors, numbers) = integers(&Value::Null, (4, 32, true, false), put);
        // Zeros where there is no bias are what some versions write.
        tensors.insert(
            "model.layers.0.mlp.up_proj.bias".into(),
            Stored { dtype: Dtype::F16, shape: vec![96], bytes: vec![0; 192] },
        );
        tiny::write(dir.path(), &config, &tensors);
        std::fs::write(dir.path().join(file), keys.to_string()).unwrap();
        let model = import(dir.path()).unwrap();
        let name = numbers.keys().next().unwrap();
        assert_eq!(model.packed.unwrap().method, format!("{method}, 4 bits in groups of 32"));
        let found = eval_constant(&model.graph, weight(&model.graph, name)).unwrap().to_f32();
        assert_eq!(found, numbers[name]);
    }
}

/// Weights of large models come in pieces.
#[test]
fn hashes_tell_checkpoints_apart_and_do_not_depend_on_who_asks() {
    let config = json!({ "quant_method": "gptq", "bits": 4, "group_size": 32 });
    let hashes = |change: fn(&mut Tensors)| {
        let put = |weight: &Weight, base: &str, tensors: &mut Tensors| weight.gptq(base, true, tensors);
        let (config, mut tensors, _) = integers(&config, (4, 32, false, false), put);
        change(&mut tensors);
        let dir = TempDir::new().unwrap();
        tiny::write(dir.path(), &config, &tensors);
        hash(dir.path())
    };
    let first = hashes(|_| ());
    assert_eq!(first, hashes(|_| ()));
    for suffix in ["qweight", "qzeros", "scales"] {
        let changed = match suffix {
            "qweight" => hashes(|t| t.get_mut("model.layers.0.mlp.up_proj.qweight").unwrap().bytes[5] ^= 1),
            "qzeros" => hashes(|t| t.get_mut("model.layers.0.mlp.up_proj.qzeros").unwrap().bytes[5] ^= 1),
            _ => hashes(|t| t.get_mut("model.layers.0.mlp.up_proj.scales").unwrap().bytes[4] ^= 1),
        };
        assert_ne!(first, changed, "{suffix}");
    }
}

fn hash(dir: &Path) -> String {
    let graph = import(dir).unwrap().graph;
    graph.constants["model.layers.0.mlp.up_proj.weight"].hash().unwrap().to_string()
}
