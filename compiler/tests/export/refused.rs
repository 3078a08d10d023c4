//! What cannot be exported, and what is not overwritten.

use std::fs;

use serde_json::{Value, json};

use super::{DEMO, Place, contents, refuse};

const PACKED: [&str; 2] = ["--format", "compressed-tensors"];

fn export(model: &str, out: &str, args: &[&str]) -> String {
    refuse(&[&["export", model, "-o", out], &PACKED[..], args].concat())
}

#[test]
fn what_is_no_export_stays() {
    let place = Place::new();
    let (model, out) = (place.model(|_, _| ()), place.text("out"));
    fs::create_dir(&out).unwrap();
    fs::write(place.path("out/mine"), "mine").unwrap();
    let expected = format!(
        "error: `{out}` exists and is not an export\n  \
         help: give another path, or remove what is there: only exports are replaced\n"
    );
    assert_eq!(export(&model, &out, &[]), expected);
    assert_eq!(fs::read_to_string(place.path("out/mine")).unwrap(), "mine");
    assert_eq!(export("nowhere", &out, &[]), expected, "before the model is read");
    // A checkpoint is none, either, and no model writes over itself.
    assert!(export(&model, &model, &[]).contains("exists and is not an export"));
    fs::remove_dir_all(&out).unwrap();
    place.export(&model, "compressed-tensors", "out", &[]);
    fs::write(place.path("out/stale"), "stale").unwrap();
    place.export(&model, "safetensors-bf16", "out", &[]);
    let files: Vec<String> = contents(&place.path("out")).into_keys().collect();
    assert_eq!(files, ["config.json", "fireq-export.json", "model.safetensors"]);
}

#[test]
fn what_fails_leaves_nothing_and_keeps_what_was_there() {
    let place = Place::new();
    let (model, out) = (place.model(|_, _| ()), place.text("out"));
    place.export(&model, "compressed-tensors", "out", &[]);
    let before = contents(&place.path("out"));
    let broken = place.model(|_, tensors| {
        let norm = tensors.get_mut("model.layers.1.input_layernorm.weight").unwrap();
        norm.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let said = export(&broken, &out, &[]);
    assert!(
        said.starts_with("error: tensor `model.layers.1.input_layernorm.weight` has a NaN or infinity\n"),
        "{said}"
    );
    assert!(contents(&place.path("out")) == before);
    let mut left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["model", "out"]);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let place = Place::new();
    let model = place.model(|_, tensors| {
        let weight = tensors.get_mut("model.layers.0.mlp.up_proj.weight").unwrap();
        weight.bytes[400..404].copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    let said = export(&model, &place.text("out"), &[]);
    assert!(said.contains("`model.layers.0.mlp.up_proj.weight`: element 100 is inf"), "{said}");
}

#[test]
fn artifacts_are_quantized_already() {
    let place = Place::new();
    let model = place.model(|_, _| ());
    let (artifact, out) = (place.compile(&model, "out.fireq", "quantize-weights", &[]), place.text("out"));
    for args in [["--recipe", "rtn"], ["--passes", "clean"], ["--calib", "text"]] {
        let expected = format!(
            "error: `{artifact}` is an artifact, which is quantized already\n  \
             help: leave {} out, or give the model directory\n",
            args[0]
        );
        assert_eq!(export(&artifact, &out, &args), expected);
    }
}

#[test]
fn damaged_and_older_artifacts_are_refused() {
    let place = Place::new();
    let model = place.model(|_, _| ());
    let artifact = place.compile(&model, "out.fireq", "quantize-weights", &[]);
    let out = place.text("out");
    let weights = place.path("out.fireq/weights.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&weights, damaged).unwrap();
    assert!(export(&artifact, &out, &[]).contains("weights.safetensors"));
    fs::write(&weights, bytes).unwrap();
    // Another graph under the right hash: the plan is not its plan.
    let (manifest, graph) = (place.path("out.fireq/manifest.json"), place.path("out.fireq/graph.ir"));
    let mut json: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let text = fs::read_to_string(&graph).unwrap();
    let other = text.replacen("eps=1e-5", "eps=1e-4", 1);
    fs::write(&graph, &other).unwrap();
    json["files"]["graph.ir"] = json!(blake3::hash(other.as_bytes()).to_hex().to_string());
    fs::write(&manifest, json.to_string()).unwrap();
    let said = export(&artifact, &out, &[]);
    assert!(said.contains("the plan is not that of the graph\n  help: compile the model again"), "{said}");
    fs::write(&graph, &text).unwrap();
    json["files"]["graph.ir"] = json!(blake3::hash(text.as_bytes()).to_hex().to_string());
    json["files"].as_object_mut().unwrap().remove("config.json");
    fs::write(&manifest, json.to_string()).unwrap();
    let said = export(&artifact, &out, &[]);
    assert!(said.contains("has no config.json\n  help: it is of an older fireq"), "{said}");
}

#[test]
fn other_files_and_models_without_int4_are_refused() {
    let place = Place::new();
    let (model, out) = (place.model(|_, _| ()), place.text("out"));
    let said = export(&model, &out, &["--recipe", "none"]);
    let expected = "error: no linear has an INT4 weight that compressed-tensors can hold\n  \
                    help: --format safetensors-bf16 writes unquantized models; recipes such as rtn quantize\n";
    assert_eq!(said, expected);
    let said = export(&format!("{model}/config.json"), &out, &[]);
    assert!(
        said.contains("has no weights to export\n  help: give a model directory or an artifact"),
        "{said}"
    );
    let said = export(DEMO, &out, &["--recipe", "rnt"]);
    assert!(said.contains("unknown recipe `rnt`; did you mean `rtn`?"), "{said}");
    let said = export(&model, &format!("{model}/config.json/out"), &[]);
    assert!(said.contains("config.json") && said.contains("help: the output needs a directory"), "{said}");
    place.export(&model, "safetensors-bf16", "out", &["--recipe", "none", "--dtype", "f32"]);
    assert_eq!(place.logits(&out), place.logits(&model));
}

/// A configuration that is not the weights' own: what it implies is compared with what the graph does.
#[test]
fn an_artifact_whose_configuration_is_another_models_is_refused() {
    let place = Place::new();
    let model = place.model(|_, _| ());
    let artifact = place.compile(&model, "out.fireq", "quantize-weights", &[]);
    let (path, manifest) = (place.path("out.fireq/config.json"), place.path("out.fireq/manifest.json"));
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["rms_norm_eps"] = json!(1e-6);
    let text = config.to_string();
    fs::write(&path, &text).unwrap();
    let mut json: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    json["files"]["config.json"] = json!(blake3::hash(text.as_bytes()).to_hex().to_string());
    fs::write(&manifest, json.to_string()).unwrap();
    let said = export(&artifact, &place.text("out"), &[]);
    assert!(
        said.contains("error: the graph has `rms_norm`") && said.contains("where config.json implies"),
        "{said}"
    );
}
