//! `fireq compile --dry-run`: with weights, from an index, from a configuration alone, and what it says each will take.

#![cfg(feature = "llvm")]

mod references;
mod tiny;

use std::fs;
use std::path::{Path, PathBuf};

use fireq::import::{ImportOptions, Weights, import_listed};
use references::Reference;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::fireq;

/// A tiny model's directory.
fn model() -> TempDir {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), &tiny::config(), &tiny::tensors());
    dir
}

/// The same without weights, with an index of them.
fn listed(change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = model();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let shard = |name: String| (name, json!("model-00001-of-00001.safetensors"));
    let map: serde_json::Map<String, Value> = tiny::tensors().into_keys().map(shard).collect();
    let bytes: usize = tiny::tensors().values().map(|tensor| tensor.bytes.len()).sum();
    let mut index = json!({ "metadata": { "total_size": bytes }, "weight_map": map });
    change(&mut index["weight_map"]);
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    dir
}

fn dry_run(dir: &Path, more: &[&str]) -> Value {
    let args = [&["compile", dir.to_str().unwrap(), "--dry-run", "--json"], more].concat();
    let result = fireq(&args);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    serde_json::from_slice(&result.stdout).unwrap()
}

#[track_caller]
fn refused(dir: &Path, more: &[&str], expected: &str) {
    let path = dir.to_str().unwrap();
    let result = fireq(&[&["compile", path, "--dry-run"], more].concat());
    assert_eq!(String::from_utf8_lossy(&result.stderr).trim_end().replace(path, "{dir}"), expected);
    assert_eq!(result.status.code(), Some(1));
}

/// The sum of a sum's terms.
fn summed(sum: &Value) -> f64 {
    sum["terms"].as_array().unwrap().iter().map(|term| term["value"].as_f64().unwrap()).sum()
}

#[test]
fn what_an_artifact_takes_is_what_was_said() {
    let dir = model();
    let out = dir.path().join("out.fireq");
    let estimate = &dry_run(dir.path(), &[])["estimate"];
    let said = estimate["artifact_bytes"]["total"].as_f64().unwrap();
    assert!(fireq(&["compile", dir.path().to_str().unwrap(), "-o", out.to_str().unwrap()]).status.success());
    let found = bytes(&out) as f64;
    // What is not in the sum: a header that names each tensor, and a manifest.
    assert!((found - 16e3..=found).contains(&said), "{said} bytes were said, {found} were written");
    assert_eq!(summed(&estimate["artifact_bytes"]), said);
    assert_eq!(estimate["compile_disk_bytes"]["total"], said);
}

fn bytes(path: &Path) -> u64 {
    if path.is_file() {
        return path.metadata().unwrap().len();
    }
    fs::read_dir(path).unwrap().map(|entry| bytes(&entry.unwrap().path())).sum()
}

#[test]
fn memory_grows_with_the_context() {
    let dir = model();
    let of = |context: &str| {
        let report = dry_run(dir.path(), &["--context", context]);
        let sum = &report["estimate"]["run_memory_bytes"]["cpu"];
        assert_eq!(summed(sum), sum["total"].as_f64().unwrap());
        let term = |what: &str| {
            let terms = sum["terms"].as_array().unwrap();
            terms.iter().find(|term| term["what"] == what).unwrap()["value"].as_f64().unwrap()
        };
        assert_eq!(term("weights"), report["weight_bytes"].as_f64().unwrap());
        term("cache")
    };
    assert_eq!(of("64"), 4.0 * of("16"));
}

#[test]
fn an_index_stands_for_its_shards() {
    let whole = dry_run(model().path(), &[]);
    let dir = listed(|_| ());
    let found = dry_run(dir.path(), &[]);
    for key in ["parameters", "weight_bytes", "cache_bytes_per_token"] {
        assert_eq!(found[key], whole[key], "{key}");
    }
    // Beside what the index counts, frequencies of rope are in the graph.
    assert_eq!(found["checkpoint_bytes"].as_u64().unwrap() + 64, whole["checkpoint_bytes"].as_u64().unwrap());
    let text = fireq(&["compile", dir.path().to_str().unwrap(), "--dry-run"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("1 of 1 shards are not here: tensors are those of the index"), "{text}");
    refused(
        listed(|map| drop(map.as_object_mut().unwrap().remove("model.norm.weight"))).path(),
        &[],
        "error: the checkpoint lacks tensor `model.norm.weight`\n  \
         help: config.json and the weights belong to different models, or a shard is missing",
    );
    refused(
        listed(|map| map["model.extra.weight"] = json!("more.safetensors")).path(),
        &[],
        "error: the checkpoint has unknown tensor `model.extra.weight`\n  \
         help: config.json does not describe these weights: compiling without them would give wrong text",
    );
}

#[test]
fn a_configuration_alone_is_enough() {
    let dir = model();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let found = dry_run(dir.path(), &["--target", "cpu,sm_90a"]);
    assert_eq!(found["weightless"], true);
    let targets: Vec<&String> = found["estimate"]["run_memory_bytes"].as_object().unwrap().keys().collect();
    assert_eq!(targets, ["cpu", "sm_90a"]);
}

#[test]
fn pickled_weights_are_refused_as_they_are_without_a_dry_run() {
    let dir = listed(|_| ());
    let index = dir.path().join("model.safetensors.index.json");
    fs::rename(&index, dir.path().join("pytorch_model.bin.index.json")).unwrap();
    refused(
        dir.path(),
        &[],
        "error: `{dir}`: the weights are in `pytorch_model.bin.index.json`, and neither in model.safetensors nor in shards of it\n  \
         help: fireq reads safetensors; with only pytorch_model.bin, load the model in transformers and save it with \
         save_pretrained(dir, safe_serialization=True)",
    );
}

/// A recipe that looks at data is tried on a small model, not on this one, whose tokenizer is not here either.
#[test]
fn recipes_that_look_at_data_are_counted_without_running_them() {
    let dir = listed(|_| ());
    let found = dry_run(dir.path(), &["--recipe", "fireq", "--calib-tokens", "256"]);
    let seconds = &found["estimate"]["compile_seconds"];
    let terms = seconds["terms"].as_array().unwrap();
    for what in ["runs on data", "code for them", "scales and codes"] {
        let term = terms.iter().find(|term| term["what"] == what).unwrap_or_else(|| panic!("{seconds:#}"));
        assert!(term["value"].as_f64().unwrap() > 0.0, "{term}");
    }
    assert!(found["pipeline"].as_str().unwrap().contains("blocks("), "{}", found["pipeline"]);
}

#[test]
fn a_context_caps_what_the_model_has() {
    let dir = model();
    refused(
        dir.path(),
        &["--context", "65"],
        "error: `{dir}/config.json`: a context of 65 was asked for, the model has positions for 64\n  \
         help: --context caps `max_position_embeddings`; only yarn and dynamic rope reach beyond it, by their `factor`",
    );
    let dir = TempDir::new().unwrap();
    Reference::named("phi3").write(dir.path());
    refused(
        dir.path(),
        &["--context", "21"],
        "error: `{dir}/config.json`: a context of 21 was asked for, the model has positions for 20\n  \
         help: within `sliding_window` every layer sees all tokens; beyond it they differ, which is not computed",
    );
    Reference::named("rope-yarn").write(dir.path());
    assert_eq!(dry_run(dir.path(), &["--context", "64"])["context"], 64);
    Reference::named("phi3-longrope-long").write(dir.path());
    for (context, factors) in [("16", "short"), ("17", "long")] {
        let rope = dry_run(dir.path(), &["--context", context])["rope"].to_string();
        assert!(rope.contains(&format!("longrope, {factors} factors")), "{rope}");
    }
}

/// Of published models there are configurations, of some an index.
#[test]
fn published_models_are_read_from_their_indices_or_refused_with_the_reason() {
    let Ok(configs) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/configs")) else {
        eprintln!("skipped: ../shared is not here");
        return;
    };
    let mut dirs: Vec<PathBuf> = configs.map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs {
        let pickled = dir.join("pytorch_model.bin.index.json").exists();
        match import_listed(&dir, ImportOptions::default()) {
            Ok((model, Weights::Listed { absent, shards, .. })) => {
                assert_eq!(absent, shards, "{}", dir.display());
                assert!(model.weightless);
            }
            Ok((_, weights)) => assert_eq!(weights, Weights::Implied, "{}", dir.display()),
            Err(error) => {
                assert!(pickled && error.to_string().contains("pytorch_model.bin.index.json"), "{error}");
            }
        }
    }
}
