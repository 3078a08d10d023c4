//! Imported models give the logits of the reference implementation.

mod tiny;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fireq::import::{ImportOptions, Model, ModelConfig, import, import_with, layout};
use fireq::interpreted::Interpreted;
use fireq::numerics::relative_error;
use fireq_ir::verify::verify;
use fireq_ir::{DType, Op, ValueId};
use fireq_runtime::Select;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

const FIXTURES: [&str; 5] =
    ["llama2-mha", "llama3-gqa-scaled-rope", "mistral-mqa", "qwen2-bias-tied", "qwen3-qknorm-hd128"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture(name: &str) -> Option<PathBuf> {
    let dir = root().join("../shared/fixtures").join(name);
    if !dir.exists() {
        eprintln!("skipped: ../shared is not here");
        return None;
    }
    Some(dir)
}

/// The fixtures' references come from models cast to their weights' dtype as a whole, rope frequencies included.
#[test]
fn every_fixture_gives_its_reference_logits() {
    for dir in FIXTURES.into_iter().filter_map(fixture) {
        let rope = import(&dir).map(|model| weight_dtype(&model)).unwrap();
        let error = reference_error(&dir, ImportOptions { rope, context: None });
        assert!(error <= 1e-5, "{}: relative error {error}", dir.display());
    }
}

#[test]
fn the_demo_model_gives_its_reference_logits() {
    let error = reference_error(&root().join("tests/models/tinystories-3m"), ImportOptions::default());
    assert!(error <= 1e-3, "relative error {error}");
}

fn weight_dtype(model: &Model) -> DType {
    let graph = &model.graph;
    let embedding =
        |v: &ValueId| matches!(graph.op(*v), Op::Const { name } if &**name == "model.embed_tokens.weight");
    graph.ty(graph.schedule().into_iter().find(embedding).unwrap()).dtype
}

/// Relative L2 error of the logits of every sequence of the reference.
fn reference_error(dir: &Path, options: ImportOptions) -> f64 {
    let bytes = fs::read(dir.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let tokens = reference.tensor("tokens").unwrap();
    let expected = reference.tensor("logits").unwrap();
    let expected: Vec<f32> =
        expected.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let model = import_with(dir, options).unwrap();
    verify(&model.graph).unwrap();
    let rows = tokens.data().chunks_exact(8 * tokens.shape()[1]);
    let ids = |row: &[u8]| -> Vec<u32> {
        row.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    };
    let found: Vec<f32> = rows.flat_map(|row| run(&model, &ids(row))).collect();
    relative_error(&expected, &found)
}

fn run(model: &Model, ids: &[u32]) -> Vec<f32> {
    Interpreted::new(model.graph.clone()).step(ids, Select::All).unwrap()
}

/// Published configurations, of transformers 4 and 5, imply exactly the tensors that their checkpoints list.
#[test]
fn published_configurations_imply_the_tensors_of_their_checkpoints() {
    let Ok(configs) = fs::read_dir(root().join("../shared/configs")) else {
        eprintln!("skipped: ../shared is not here");
        return;
    };
    let mut dirs: Vec<PathBuf> = configs.map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs {
        let expected = layout(&ModelConfig::read(&dir).unwrap());
        let Ok(index) = fs::read(dir.join("model.safetensors.index.json")) else { continue };
        let index: Value = serde_json::from_slice(&index).unwrap();
        let listed = index["weight_map"].as_object().unwrap().keys().filter(|k| !k.ends_with("inv_freq"));
        let listed: BTreeSet<&String> = listed.collect();
        assert_eq!(expected.keys().collect::<BTreeSet<_>>(), listed, "{}", dir.display());
    }
}

/// The tiny model under another configuration and with other tensors.
fn tiny_model(change: impl FnOnce(&mut Value, &mut tiny::Tensors)) -> Model {
    let dir = TempDir::new().unwrap();
    let (mut config, mut tensors) = (tiny::config(), tiny::tensors());
    change(&mut config, &mut tensors);
    tiny::write(&dir.path().join("tiny"), &config, &tensors);
    import(&dir.path().join("tiny")).unwrap()
}

#[test]
fn the_keys_of_transformers_4_and_5_mean_the_same() {
    let llama3 = json!({ "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32 });
    let with = |key: &str, value: Value| {
        let mut rope = llama3.clone();
        rope[key] = value;
        rope
    };
    let newer = tiny_model(|config, _| {
        config["rope_parameters"] = with("rope_type", json!("llama3"));
        config["rope_parameters"]["rope_theta"] = json!(500000.0);
    });
    for key in ["rope_type", "type"] {
        let older = tiny_model(|config, _| {
            let keys = config.as_object_mut().unwrap();
            keys.retain(|key, _| key != "rope_parameters" && key != "dtype" && key != "head_dim");
            keys.insert("rope_theta".into(), json!(500000));
            keys.insert("rope_scaling".into(), with(key, json!("llama3")));
            keys.insert("torch_dtype".into(), json!("float32"));
        });
        assert_eq!(newer.config, older.config);
        assert_eq!(run(&newer, &[1, 2, 3]), run(&older, &[1, 2, 3]));
    }
}

#[test]
fn token_ids_are_one_several_or_none_and_generation_config_wins() {
    let eos = |value: Value| tiny_model(|config, _| config["eos_token_id"] = value).config.eos;
    assert_eq!(eos(json!(7)), [7]);
    assert_eq!(eos(json!([7, 9])), [7, 9]);
    assert!(eos(Value::Null).is_empty() && eos(json!(-1)).is_empty());
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), &tiny::config(), &tiny::tensors());
    fs::write(dir.path().join("generation_config.json"), r#"{ "eos_token_id": [3, 4] }"#).unwrap();
    let config = ModelConfig::read(dir.path()).unwrap();
    assert_eq!((config.bos, config.eos), (Some(0), vec![3, 4]));
}

#[test]
fn tied_embeddings_stand_in_for_the_output_projection() {
    let tied = tiny_model(|config, tensors| {
        config["tie_word_embeddings"] = json!(true);
        tensors.remove("lm_head.weight");
    });
    let copied = tiny_model(|config, tensors| {
        config["tie_word_embeddings"] = json!(true);
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), tiny::random(1, &[16]));
    });
    let untied = tiny_model(|_, tensors| {
        let embedding = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".into(), embedding);
    });
    assert_eq!(run(&tied, &[5, 6]), run(&untied, &[5, 6]));
    assert_eq!(run(&tied, &[5, 6]), run(&copied, &[5, 6]));
}

#[test]
fn zero_biases_change_nothing_and_others_do() {
    let biased = |value: f32| {
        tiny_model(|config, tensors| {
            (config["attention_bias"], config["mlp_bias"]) = (json!(true), json!(true));
            let linears: Vec<_> = tensors.keys().filter(|name| name.contains("_proj.")).cloned().collect();
            for name in linears {
                let rows = tensors[&name].shape[0];
                let mut bias = tiny::random(1, &[rows]);
                bias.bytes = value.to_le_bytes().repeat(rows);
                tensors.insert(name.replace("weight", "bias"), bias);
            }
        })
    };
    let plain = run(&tiny_model(|_, _| ()), &[5, 6]);
    assert_eq!(run(&biased(0.0), &[5, 6]), plain);
    assert_ne!(run(&biased(0.5), &[5, 6]), plain);
}

#[test]
fn a_sliding_window_caps_the_context() {
    let context = |architecture: &str, window: Value| {
        let model = tiny_model(|config, _| {
            config["architectures"] = json!([architecture]);
            config["sliding_window"] = window;
        });
        model.config.context
    };
    assert_eq!(context("MistralForCausalLM", json!(16)), 16);
    assert_eq!(context("MistralForCausalLM", Value::Null), 64);
    assert_eq!(context("LlamaForCausalLM", json!(16)), 64);
}
