//! Checkpoints of numbers are read by fireq again and give the logits of the quantized graph.

use fireq::numerics::relative_error;
use serde_json::json;

use super::{DEMO, Place, contents};
use crate::tiny::random;

const PASSES: &str = "quantize-weights{fit=clipped}";

#[test]
fn logits_of_numbers_are_those_of_codes() {
    let place = Place::new();
    for model in [DEMO.to_string(), place.model(|_, _| ())] {
        let artifact = place.compile(&model, "out.fireq", PASSES, &[]);
        let wanted = place.logits(&artifact);
        place.export(&artifact, "safetensors-bf16", "exact", &["--dtype", "f32"]);
        let error = relative_error(&wanted, &place.logits(&place.text("exact")));
        assert!(error < 1e-6, "{model}: {error}");
        place.export(&artifact, "safetensors-bf16", "rounded", &[]);
        let error = relative_error(&wanted, &place.logits(&place.text("rounded")));
        // Half a unit in the last of 8 bits, and what a network makes of it.
        assert!((1e-5..1e-2).contains(&error), "{model}: {error}");
        let said = place.json("rounded/fireq-export.json");
        let rounding = said["error"].as_f64().unwrap();
        assert!((5e-4..1.0 / 512.0).contains(&rounding), "{rounding}");
        assert_eq!(said["format"], "safetensors-bf16");
        assert!(place.json("rounded/config.json")["quantization_config"].is_null());
    }
}

#[test]
fn shards_hold_as_much_as_one_file_does() {
    let place = Place::new();
    let model = place.model(|_, _| ());
    place.export(&model, "safetensors-bf16", "one", &["--dtype", "f32"]);
    place.export(&model, "safetensors-bf16", "many", &["--dtype", "f32", "--shard-size", "20kB"]);
    let index = place.json("many/model.safetensors.index.json");
    let one = place.tensors("one");
    assert_eq!(index["weight_map"].as_object().unwrap().len(), one.len());
    let bytes: usize = one.values().map(|tensor| tensor.bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], bytes);
    let files = contents(&place.path("many"));
    let shards: Vec<_> = files.keys().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(
        shards.len() > 3 && *shards[0] == format!("model-00001-of-{:05}.safetensors", shards.len()),
        "{shards:?}"
    );
    assert_eq!(place.logits(&place.text("many")), place.logits(&place.text("one")));
}

#[test]
fn the_same_model_gives_the_same_bytes_on_any_number_of_threads() {
    let place = Place::new();
    for format in ["compressed-tensors", "safetensors-bf16"] {
        place.export(DEMO, format, "one", &["--threads", "1"]);
        place.export(DEMO, format, "two", &["--threads", "2"]);
        assert!(contents(&place.path("one")) == contents(&place.path("two")), "{format}");
    }
}

#[test]
fn a_head_of_its_own_numbers_is_no_longer_the_embedding() {
    let place = Place::new();
    let model = place.model(|config, tensors| {
        config["tie_word_embeddings"] = json!(true);
        tensors.remove("lm_head.weight");
    });
    let artifact = place.compile(&model, "out.fireq", "quantize-weights,quantize-head", &[]);
    place.export(&artifact, "safetensors-bf16", "numbers", &["--dtype", "f32"]);
    assert_eq!(place.json("numbers/config.json")["tie_word_embeddings"], json!(false));
    let found = place.tensors("numbers");
    assert!(found["lm_head.weight"].bytes != found["model.embed_tokens.weight"].bytes);
    let error = relative_error(&place.logits(&artifact), &place.logits(&place.text("numbers")));
    assert!(error < 1e-6, "{error}");
    let said = place.export(&artifact, "compressed-tensors", "packed", &[]);
    assert!(said.contains("  note      lm_head: heads are numbers in vLLM\n"), "{said}");
    assert!(place.tensors("packed").contains_key("lm_head.weight"));
}

#[test]
fn half_precision_checkpoints_say_what_rounding_costs() {
    let place = Place::new();
    let model = place.model(|_, tensors| drop(tensors.insert("model.norm.weight".into(), random(3, &[64]))));
    let said = place.export(&model, "compressed-tensors", "packed", &[]);
    let line = said.lines().find(|line| line.ends_with(" of all other numbers, rounded to bf16")).unwrap();
    let error: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((1e-4..1.0 / 512.0).contains(&error), "{line}");
    let said = place.export(&model, "compressed-tensors", "packed", &["--dtype", "f32"]);
    assert!(!said.contains("of all other numbers"), "{said}");
}
