//! `fireq eval --by-site` finds the site that hurts, counts nothing twice, and says the same as `eval --against`.

#[cfg(feature = "llvm")]
mod compiled;
#[path = "../tiny/mod.rs"]
mod tiny;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::{Tensors, fireq};

/// A tiny model with a tokenizer of one word for each token, and a text.
struct Model {
    temp: TempDir,
    dir: PathBuf,
}

impl Model {
    fn new(config: &Value, tensors: &Tensors) -> Self {
        let temp = TempDir::new().unwrap();
        let dir = temp.path().join("model");
        tiny::write(&dir, config, tensors);
        let vocab: Value =
            (0..32).map(|n| (format!("w{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
        });
        fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let words: Vec<String> = (0..90).map(|n| format!("w{}", n * n * 7 % 31)).collect();
        fs::write(temp.path().join("text"), words.join(" ")).unwrap();
        Model { temp, dir }
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).to_str().unwrap().into()
    }

    fn args<'a>(&'a self, text: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        let dir = self.dir.to_str().unwrap();
        [&["eval", dir, "--by-site", "--text", text, "--ctx", "32", "--interpret"], args].concat()
    }

    fn by_site(&self, args: &[&str]) -> Value {
        let text = self.path("text");
        serde_json::from_str(&run(&self.args(&text, &[args, &["--json"]].concat()))).unwrap()
    }

    #[track_caller]
    fn refused(&self, args: &[&str], expected: &str) {
        let text = self.path("text");
        let result = fireq(&self.args(&text, args));
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert!(!result.status.success() && result.stdout.is_empty());
    }
}

fn tiny() -> Model {
    Model::new(&tiny::config(), &tiny::tensors())
}

#[track_caller]
fn run(args: &[&str]) -> String {
    let result = fireq(args);
    assert!(result.status.success(), "{args:?}: {}", String::from_utf8_lossy(&result.stderr));
    String::from_utf8(result.stdout).unwrap()
}

fn list(found: &Value, of: &str) -> Vec<Value> {
    found[of].as_array().unwrap().clone()
}

fn sum(rows: &[Value], path: &str) -> f64 {
    rows.iter().map(|row| row.pointer(path).unwrap().as_f64().unwrap()).sum()
}

/// The rows of a pass, sorted by site.
fn of_pass(found: &Value, pass: &str) -> Vec<Value> {
    let mut rows = list(found, "sites");
    rows.retain(|row| row["pass"] == pass);
    rows.sort_by_key(|row| row["site"].to_string());
    rows
}

/// Sets a channel of a tensor with rows of 64 in f32.
fn set(tensors: &mut Tensors, name: &str, channel: usize, value: f32) {
    let bytes = &mut tensors.get_mut(name).unwrap().bytes;
    bytes
        .chunks_exact_mut(4 * 64)
        .for_each(|row| row[4 * channel..][..4].copy_from_slice(&value.to_le_bytes()));
}

#[test]
fn a_weight_whose_scales_are_spoilt_by_an_outlier_is_the_worst() {
    let linears = ["self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"];
    for (layer, linear) in [0, 1].into_iter().flat_map(|n| linears.map(|l| (n, l))) {
        let norm = if linear.starts_with("mlp") { "post_attention_layernorm" } else { "input_layernorm" };
        let (mut tensors, site) = (tiny::tensors(), format!("model.layers.{layer}.{linear}.weight"));
        // The norm keeps the channel at zero: the outlier does nothing but set the scales of its groups.
        set(&mut tensors, &format!("model.layers.{layer}.{norm}.weight"), 3, 0.0);
        set(&mut tensors, &site, 3, 1000.0);
        let found = Model::new(&tiny::config(), &tensors).by_site(&[]);
        let worst = &found["sites"][0];
        assert_eq!((&worst["site"], &worst["pass"]), (&site.into(), &"quantize-weights".into()), "{worst:#}");
        let layers = list(&found, "layers");
        assert!(sum(&layers[layer..=layer], "/mean_kl") > sum(&layers[1 - layer..=1 - layer], "/mean_kl"));
    }
}

#[test]
fn every_weight_input_and_cache_is_a_site_once_and_belongs_to_its_layer() {
    let found = tiny().by_site(&[]);
    let [weights, inputs, caches] =
        ["quantize-weights", "quantize-activations", "quantize-kv"].map(|pass| of_pass(&found, pass));
    let names = |rows: &[Value]| rows.iter().map(|row| row["site"].clone()).collect::<Vec<_>>();
    assert_eq!((weights.len(), names(&caches)), (14, vec!["k.0".into(), "k.1".into()]));
    assert_eq!(names(&weights), names(&inputs));
    for (weight, input) in weights.iter().zip(&inputs) {
        assert_eq!(weight["upon"], Value::Null);
        assert_eq!(input["upon"], json!({ "pass": "quantize-weights", "site": weight["site"] }));
        assert_eq!(input["saved"], json!({ "weights": 0, "cache_per_token": 0 }));
        assert_eq!(
            (&weight["layer"], &weight["formats"]),
            (&input["layer"], &json!(["i4<g128:e4m3,row:f32>"]))
        );
        let layer = format!("model.layers.{}.", weight["layer"]);
        assert!(weight["site"].as_str().unwrap().starts_with(&layer), "{weight:#}");
    }
    let order: Vec<f64> = list(&found, "sites").iter().map(|row| row["mean_kl"].as_f64().unwrap()).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
    assert!((sum(&list(&found, "layers"), "/mean_kl") - order.iter().sum::<f64>()).abs() < 1e-12);
    assert_eq!((&found["tokens"], list(&found, "layers").len()), (&json!(90), 2));
}

#[test]
fn sites_save_what_the_pipeline_does() {
    let model = tiny();
    let found = model.by_site(&[]);
    let size = |passes: &str, key: &str| {
        let line = ["compile", model.dir.to_str().unwrap(), "--dry-run", "--json", "--passes", passes];
        serde_json::from_str::<Value>(&run(&line)).unwrap()[key].as_f64().unwrap()
    };
    for (path, key) in [("weights", "weight_bytes"), ("cache_per_token", "cache_bytes_per_token")] {
        let saved = sum(&list(&found, "sites"), &format!("/saved/{path}"));
        assert_eq!(saved, size("none", key) - size("rtn", key), "{key}");
        assert!(saved > 0.0);
    }
}

#[test]
fn a_pass_named_twice_has_each_site_once() {
    let found =
        tiny().by_site(&["--passes", "quantize-weights{keep=*mlp*|lm_head*},quantize-weights{group=32}"]);
    let rows = of_pass(&found, "quantize-weights");
    let mut names: Vec<String> = rows.iter().map(|row| row["site"].to_string()).collect();
    names.dedup();
    assert_eq!(names.len(), 14);
    for row in rows {
        let mlp = row["site"].as_str().unwrap().contains("mlp");
        let format = if mlp { "i4<g32:e4m3,row:f32>" } else { "i4<g128:e4m3,row:f32>" };
        assert_eq!(row["formats"], json!([format]), "{row:#}");
    }
}

#[test]
fn passes_that_keep_the_numbers_are_no_sites_and_hide_none() {
    let model = tiny();
    let plain = model.by_site(&[]);
    let cleaned =
        model.by_site(&["--passes", "clean,quantize-weights,clean,quantize-activations,quantize-kv,fuse"]);
    for pass in ["quantize-weights", "quantize-activations", "quantize-kv"] {
        let [plain, cleaned] = [&plain, &cleaned].map(|found| of_pass(found, pass));
        assert_eq!(plain.len(), cleaned.len(), "{pass}");
        for (plain, cleaned) in plain.iter().zip(&cleaned) {
            assert_eq!(plain["site"], cleaned["site"]);
            let near = (plain["mean_kl"].as_f64().unwrap() - cleaned["mean_kl"].as_f64().unwrap()).abs();
            assert!(near < 1e-6, "{plain:#}\n{cleaned:#}");
        }
    }
}

#[test]
fn the_table_ranks_sites_and_then_layers() {
    let (model, args) = (tiny(), ["--passes", "quantize-kv"]);
    let text = model.path("text");
    let printed = run(&model.args(&text, &args));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 1 + 2 + 2 + 1 + 2, "{printed}");
    let worst = model.by_site(&args)["sites"][0].clone();
    let kl = format!("{:.6}", worst["mean_kl"].as_f64().unwrap());
    assert!(lines[3].trim_start().starts_with(&kl), "{printed}");
    let bars = [6, 7].map(|n: usize| lines[n].matches('█').count());
    assert_eq!(bars.iter().max(), Some(&40), "{printed}");
    assert!(lines[6].contains("layer 0") && lines[7].contains("layer 1"), "{printed}");
    assert_eq!(bars[0] == 40, worst["layer"] == 0, "{printed}");
}

#[test]
fn what_cannot_be_tried_by_site_is_refused_with_a_hint() {
    let model = tiny();
    model.refused(&["--passes", "cse"], "no pass of `cse` gives up precision");
    model.refused(
        &["--passes", "fixpoint(cse,quantize-kv)"],
        "of `quantize-kv` does not stand alone in fixpoint(…)",
    );
    let calibrated = "sites are tried one at a time, without calibration data\n  help: ";
    for passes in ["blocks(quantize-kv)", "quantize-weights{method=gptq}", "smooth-linears,quantize-kv"] {
        model.refused(&["--passes", passes], calibrated);
    }
    model.refused(&["--passes", "quantise-kv"], "did you mean `quantize-kv`?");
    model.refused(&["--limit", "1"], "fewer than two tokens");
    model.refused(&["--device", "cuda"], "sites are measured on CPUs");
    for (option, value) in [("--against", "elsewhere"), ("--worst", "3")] {
        model.refused(&[option, value], &format!("'--by-site' cannot be used with '{option}"));
    }
    let text = model.path("text");
    let dir = model.dir.to_str().unwrap();
    for (args, expected) in [
        (
            vec!["eval", dir, "--text", &text, "--by-site", "--ctx", "65"],
            "--ctx 65 does not lie between 2 and 64",
        ),
        (vec!["eval", dir, "--text", &text, "--passes", "cse"], "--by-site"),
        (vec!["eval", "nowhere", "--text", &text, "--by-site"], "`nowhere` does not exist"),
    ] {
        let result = fireq(&args);
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert!(stderr.contains(expected) && !result.status.success(), "{args:?}: {stderr}");
    }
    fs::remove_file(model.dir.join("tokenizer.json")).unwrap();
    model.refused(&[], "tokenizer.json");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let mut tensors = tiny::tensors();
    set(&mut tensors, "model.layers.1.mlp.up_proj.weight", 5, f32::NAN);
    let expected = "tensor `model.layers.1.mlp.up_proj.weight` has a NaN or infinity at element 5";
    Model::new(&tiny::config(), &tensors).refused(&[], expected);
}
