//! What a packed checkpoint lacks or has wrong is named, and methods that are not read are refused by name.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::pack::{Weight, words};
use super::tiny::{self, Tensors};
use super::{compressed, integers};

/// The error of importing a model, with its hint.
fn error(config: &Value, tensors: &Tensors) -> String {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), config, tensors);
    let error = fireq::import::import(dir.path()).unwrap_err();
    let path = dir.path().display().to_string();
    format!("{error}\nhelp: {}", error.hint()).replace(&path, "{dir}")
}

#[track_caller]
fn spoilt(made: (Value, Tensors), spoil: impl FnOnce(&mut Tensors), expected: &str) {
    let (config, mut tensors) = made;
    spoil(&mut tensors);
    assert_eq!(error(&config, &tensors), expected);
}

fn gptq() -> (Value, Tensors) {
    let config = json!({ "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true });
    let put = |weight: &Weight, base: &str, tensors: &mut Tensors| weight.gptq(base, true, tensors);
    let (config, tensors, _) = integers(&config, (4, 32, false, true), put);
    (config, tensors)
}

const UP: &str = "model.layers.0.mlp.up_proj";
const AGAIN: &str =
    "help: the checkpoint is gptq, 4 bits in groups of 32; download it again, or pack it again";

/// A change of what says how weights are packed, and why it is refused.
type Case<'a> = (&'a dyn Fn(&mut Value), &'a str);

#[test]
fn tensors_that_are_missing() {
    for suffix in ["qzeros", "scales"] {
        let expected = format!("tensor `{UP}.{suffix}` is missing\n{AGAIN}");
        spoilt(gptq(), |t| drop(t.remove(&format!("{UP}.{suffix}"))), &expected);
    }
    spoilt(
        gptq(),
        |t| drop(t.remove(&format!("{UP}.qweight"))),
        "the checkpoint lacks tensor `model.layers.0.mlp.up_proj.weight`\n\
         help: config.json and the weights belong to different models, or a shard is missing",
    );
}

#[test]
fn tensors_of_wrong_shapes_and_dtypes() {
    spoilt(
        gptq(),
        |t| drop(t.insert(format!("{UP}.qweight"), words(&[8, 95], &[0; 760]))),
        &format!("tensor `{UP}.qweight` has shape [8, 95], it takes [8, 96]\n{AGAIN}"),
    );
    spoilt(
        gptq(),
        |t| drop(t.insert(format!("{UP}.scales"), words(&[2, 96], &[0; 192]))),
        &format!("tensor `{UP}.scales` has dtype I32, it takes F16 or BF16 or F32\n{AGAIN}"),
    );
    spoilt(
        gptq(),
        |t| drop(t.insert(format!("{UP}.scales"), tiny::random(1, &[96, 2]))),
        &format!("tensor `{UP}.scales` has shape [96, 2], it takes [2, 96]\n{AGAIN}"),
    );
}

#[test]
fn groups_that_are_not_there() {
    for (found, group) in [(2, "2"), (u32::MAX, "-1"), (1 << 31, "-2147483648")] {
        let put = |t: &mut Tensors| {
            let groups = t.get_mut(&format!("{UP}.g_idx")).unwrap();
            groups.bytes[40..44].copy_from_slice(&u32::to_le_bytes(found));
        };
        let expected = format!("tensor `{UP}.g_idx` puts channel 10 into group {group} of 2\n{AGAIN}");
        spoilt(gptq(), put, &expected);
    }
}

#[test]
fn a_shape_that_is_another() {
    let put = |weight: &Weight, base: &str, tensors: &mut Tensors| weight.compressed(base, true, tensors);
    let (config, tensors, _) = integers(&compressed(4, 32, true), (4, 32, true, false), put);
    spoilt(
        (config, tensors),
        |t| t.get_mut(&format!("{UP}.weight_shape")).unwrap().bytes[0] = 95,
        "tensor `model.layers.0.mlp.up_proj.weight_shape` is [95, 64], config.json implies [96, 64]\n\
         help: the checkpoint is compressed-tensors, 4 bits in groups of 32; download it again, or pack it again",
    );
}

#[test]
fn codes_that_nothing_announces() {
    let (mut config, tensors) = gptq();
    config["quantization_config"] = Value::Null;
    spoilt(
        (config, tensors),
        |_| (),
        "tensor `model.layers.0.mlp.down_proj.qweight` is packed, and nothing says how\n\
         help: config.json has `quantization_config`, or there is quantize_config.json beside it: download them again",
    );
}

#[test]
fn scales_that_are_no_numbers() {
    let put = |weight: &Weight, base: &str, tensors: &mut Tensors| weight.gptq(base, true, tensors);
    for middle in [true, false] {
        let config = json!({ "quant_method": "gptq", "bits": 4, "group_size": 32 });
        let (config, mut tensors, _) = integers(&config, (4, 32, middle, false), put);
        tensors.get_mut(&format!("{UP}.scales")).unwrap().bytes[..2]
            .copy_from_slice(&0x7c00u16.to_le_bytes());
        let dir = TempDir::new().unwrap();
        tiny::write(&dir.path().join("m"), &config, &tensors);
        let [m, out] =
            ["m", "out.safetensors"].map(|name| dir.path().join(name).to_str().unwrap().to_string());
        let output = tiny::fireq(&["logits", &m, "--interpret", "--tokens", "1", "-o", &out]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("{UP}.weight")) && text.contains("finite"), "{text}");
    }
}

#[track_caller]
fn refused(config: &Value, expected: &str) {
    let mut model = tiny::config();
    model["quantization_config"] = config.clone();
    assert_eq!(error(&model, &tiny::tensors()), format!("`{{dir}}/config.json`: {expected}"), "{config}");
}

const ORIGINAL: &str = "compile the original f32, f16 or bf16 checkpoint";

#[test]
fn methods_that_are_not_read_are_named() {
    for method in ["bitsandbytes", "hqq", "exl2", "torchao", "marlin"] {
        refused(
            &json!({ "quant_method": method, "bits": 4 }),
            &format!(
                "the checkpoint is quantized by `{method}`\n\
                 help: fireq reads gptq, awq, compressed-tensors and fp8; of others, {ORIGINAL}"
            ),
        );
    }
    refused(&json!({}), &format!("the quantization names no quant_method\nhelp: {ORIGINAL}"));
}

#[test]
fn layouts_of_one_kernel_are_refused() {
    let kernel = "save it in the layout gptq or gptq_v2, which do not depend on a kernel";
    refused(
        &json!({ "quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin" }),
        &format!("gptq in the layout `marlin` is not read\nhelp: {kernel}"),
    );
    refused(
        &json!({ "quant_method": "gptq", "bits": 4, "group_size": 128, "is_marlin_format": true }),
        &format!("gptq in the layout `marlin` is not read\nhelp: {kernel}"),
    );
    for version in ["gemv", "gemv_fast", "marlin"] {
        refused(
            &json!({ "quant_method": "awq", "bits": 4, "group_size": 128, "version": version }),
            &format!(
                "awq in the layout `{version}` is not read\nhelp: save it in the layout gemm: others are made for one \
                 kernel and do not say how rows are padded"
            ),
        );
    }
}

#[test]
fn numbers_that_are_not_read() {
    for bits in [2, 3] {
        refused(
            &json!({ "quant_method": "gptq", "bits": bits, "group_size": 128 }),
            &format!(
                "gptq with {bits} bits is not read\nhelp: fireq reads gptq with 4 and 8 bits; {ORIGINAL}"
            ),
        );
    }
    for group in [json!(0), json!(-2), json!(1u64 << 40)] {
        refused(
            &json!({ "quant_method": "gptq", "bits": 4, "group_size": group }),
            &format!(
                "the quantization's group_size is {group}\nhelp: it is a positive number, or -1 for whole rows"
            ),
        );
    }
    refused(
        &json!({ "quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": { "-:.*mlp.*": {} } }),
        &format!("gptq with rules of its own for some modules (`dynamic`) is not read\nhelp: {ORIGINAL}"),
    );
}

#[test]
fn schemes_of_compressed_tensors_that_are_not_read() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut config = compressed(4, 128, true);
        change(&mut config);
        config
    };
    let second = |c: &mut Value| {
        let mut group = c["config_groups"]["group_0"].clone();
        group["weights"]["num_bits"] = json!(8);
        c["config_groups"]["group_1"] = group;
    };
    let cases: [Case<'_>; 6] = [
        (&second, "with several schemes of weights"),
        (&|c| c["format"] = json!("marlin-24"), "in the format `marlin-24`"),
        (&|c| c["format"] = json!("nvfp4-pack-quantized"), "in the format `nvfp4-pack-quantized`"),
        (
            &|c| c["config_groups"]["group_0"]["output_activations"] = json!({ "num_bits": 8 }),
            "with quantized outputs",
        ),
        (
            &|c| c["sparsity_config"] = json!({ "format": "sparse-24-bitmask" }),
            "with sparse weights (`sparse-24-bitmask`)",
        ),
        (&|c| c["transform_config"] = json!({ "config_groups": { "R1": {} } }), "with transforms"),
    ];
    for (change, reason) in cases {
        refused(&changed(change), &format!("compressed-tensors {reason} is not read\nhelp: {ORIGINAL}"));
    }
    let caches = changed(&|c| c["kv_cache_scheme"] = json!({ "num_bits": 8, "type": "float" }));
    refused(
        &caches,
        "compressed-tensors with a kv_cache_scheme is not read\n\
         help: use a checkpoint whose weights alone are quantized: recipes quantize caches",
    );
}

#[test]
fn nonsense_is_not_understood() {
    let expected = |reason: &str| format!("the quantization is not understood: {reason}\nhelp: {ORIGINAL}");
    refused(&json!("gptq"), &expected("invalid type: string \"gptq\", expected struct Keys"));
    refused(
        &json!({ "quant_method": "gptq", "bits": "four" }),
        &expected("invalid type: string \"four\", expected u64"),
    );
}

#[test]
fn a_gguf_file() {
    let temp = TempDir::new().unwrap();
    let (file, out) = (temp.path().join("m.gguf"), temp.path().join("out.safetensors"));
    std::fs::write(&file, "GGUF").unwrap();
    let result =
        tiny::fireq(&["logits", file.to_str().unwrap(), "--tokens", "1", "-o", out.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&result.stderr);
    assert!(
        error.contains("is a GGUF file, which is not read") && error.contains("gguf_file=FILE"),
        "{error}"
    );
    assert_eq!(result.status.code(), Some(1));
}
