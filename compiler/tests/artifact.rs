//! Artifacts from the command line: the same numbers and the same bytes every time, and refused when they are not sound.

#![cfg(feature = "llvm")]

mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fireq::numerics::relative_error;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;
use tiny::fireq;

/// A tiny model, and an artifact of it.
struct Compiled {
    temp: TempDir,
}

impl Compiled {
    fn new(args: &[&str]) -> Self {
        let compiled = Compiled { temp: TempDir::new().unwrap() };
        tiny::write(&compiled.path("model"), &tiny::config(), &tiny::tensors());
        compiled.compile("out.fireq", args);
        compiled
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    fn compile(&self, out: &str, args: &[&str]) -> Vec<u8> {
        let (model, out) = (self.text("model"), self.text(out));
        run(&[&["compile", &model, "-o", &out], args].concat())
    }

    /// Logits of some tokens of a model, an artifact or an interpreted model.
    fn logits(&self, name: &str, args: &[&str]) -> Vec<f32> {
        let (model, out) = (self.text(name), self.text("logits.safetensors"));
        run(&[&["logits", &model, "--tokens", "3,1,4,1,5,9,2,6", "-o", &out], args].concat());
        floats(Path::new(&out))
    }
}

#[track_caller]
fn run(args: &[&str]) -> Vec<u8> {
    let result = fireq(args);
    assert!(result.status.success(), "{args:?}: {}", String::from_utf8_lossy(&result.stderr));
    result.stdout
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    logits.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn the_unquantized_artifact_and_the_compiled_reference_are_what_the_interpreter_computes() {
    let compiled = Compiled::new(&["--recipe", "none"]);
    let expected = compiled.logits("model", &["--interpret"]);
    for found in [compiled.logits("out.fireq", &[]), compiled.logits("model", &[])] {
        let error = relative_error(&expected, &found);
        assert!(error <= 1e-5, "relative error {error}");
    }
}

#[test]
fn every_level_of_cpu_gives_the_same_logits() {
    let compiled = Compiled::new(&["--cpu", "baseline"]);
    let host = compiled.logits("out.fireq", &[]);
    compiled.compile("host.fireq", &[]);
    let error = relative_error(&compiled.logits("host.fireq", &[]), &host);
    assert!(error <= 1e-3, "relative error {error}");
}

#[test]
fn the_same_input_gives_the_same_bytes_on_any_number_of_threads() {
    let compiled = Compiled::new(&["--threads", "1"]);
    let first = contents(&compiled.path("out.fireq"));
    compiled.compile("out.fireq", &["--threads", "2"]);
    assert_eq!(first, contents(&compiled.path("out.fireq")));
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be() {
    let compiled = Compiled::new(&[]);
    let report: Value =
        serde_json::from_slice(&compiled.compile("dry.fireq", &["--dry-run", "--json"])).unwrap();
    assert!(!compiled.path("dry.fireq").exists());
    let weights = fs::metadata(compiled.path("out.fireq/weights.safetensors")).unwrap().len();
    let estimate = report["weight_bytes"].as_u64().unwrap();
    assert!(estimate <= weights && weights < estimate + 10_000, "{estimate} bytes and a header in {weights}");
}

#[test]
fn dumps_are_numbered_and_are_valid_ir() {
    let compiled = Compiled::new(&[]);
    compiled.compile("out.fireq", &["--dump-ir", &compiled.text("dump")]);
    let names: Vec<_> = contents(&compiled.path("dump")).into_keys().collect();
    let names: Vec<_> = names.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    let passes =
        ["00-import.ir", "01-quantize-weights.ir", "02-quantize-activations.ir", "03-quantize-kv.ir"];
    assert_eq!(names, [&passes[..], &["04-plan.ir", "pipeline.log"]].concat());
    let before_last = compiled.text("dump/03-quantize-kv.ir");
    let text = run(&["opt", &before_last]);
    assert_eq!(text, fs::read(&before_last).unwrap());
    assert_eq!(text, run(&["inspect", &compiled.text("out.fireq"), "--ir"]));
}

#[test]
fn stopping_after_some_patches_prints_the_graph_that_they_leave() {
    let compiled = Compiled::new(&[]);
    let count = |patches: &str| {
        let text = run(&["compile", &compiled.text("model"), "--stop-after", patches]);
        String::from_utf8(text).unwrap().matches("= quantize ").count()
    };
    assert_eq!((count("0"), count("1"), count("3")), (0, 1, 3));
}

/// The artifact, spoilt by `spoil`, is refused with `expected` on stderr.
#[track_caller]
fn refused(spoil: impl FnOnce(&Path), expected: &str) {
    let compiled = Compiled::new(&[]);
    let artifact = compiled.text("out.fireq");
    spoil(&compiled.path("out.fireq"));
    let out = compiled.text("logits.safetensors");
    let result = fireq(&["logits", &artifact, "--tokens", "1", "-o", &out]);
    assert_eq!(String::from_utf8_lossy(&result.stderr).trim_end().replace(&artifact, "{dir}"), expected);
    assert_eq!(result.status.code(), Some(1));
    assert!(!compiled.path("logits.safetensors").exists());
}

fn edit_manifest(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn an_artifact_of_another_version() {
    refused(
        |dir| edit_manifest(dir, |manifest| manifest["schema"] = 7.into()),
        "error: {dir}/manifest.json: schema version 7; this build reads versions 3 and 4\n  \
         help: use the version of fireq that wrote it, or a newer one",
    );
}

#[test]
fn an_artifact_for_another_cpu() {
    let other = |manifest: &mut Value| manifest["target"]["features"] = serde_json::json!(["avx1024"]);
    refused(
        |dir| edit_manifest(dir, other),
        "error: the artifact is compiled for CPUs with avx1024, which this machine does not have\n  \
         help: compile the model on this machine, or with --cpu baseline",
    );
}

#[test]
fn an_artifact_with_a_changed_file() {
    let flip = |dir: &Path| {
        let path = dir.join("weights.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    refused(
        flip,
        "error: `weights.safetensors` does not have the hash that the manifest states: it was changed or damaged\n  \
         help: copy the artifact again, or compile the model again",
    );
}

#[test]
fn an_artifact_without_a_file() {
    refused(
        |dir| fs::remove_file(dir.join("cpu/model.so")).unwrap(),
        "error: {dir}/cpu/model.so: No such file or directory (os error 2)\n  \
         help: copy the artifact again, or compile the model again",
    );
}

#[test]
fn a_manifest_that_is_not_json() {
    refused(
        |dir| fs::write(dir.join("manifest.json"), "{").unwrap(),
        "error: {dir}/manifest.json: not a manifest: EOF while parsing an object at line 1 column 1\n  \
         help: an artifact is what `fireq compile` writes",
    );
}

#[test]
fn a_weight_that_is_not_a_number_leaves_no_artifact() {
    let temp = TempDir::new().unwrap();
    let (dir, out) = (temp.path().join("model"), temp.path().join("out.fireq"));
    let mut tensors = tiny::tensors();
    let bytes = &mut tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().bytes;
    bytes[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    tiny::write(&dir, &tiny::config(), &tensors);
    let result = fireq(&["compile", dir.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!(
        String::from_utf8_lossy(&result.stderr).trim_end(),
        "error: tensor `model.layers.1.mlp.up_proj.weight` has a NaN or infinity at element 100\n  \
         help: the checkpoint is damaged or diverged in training: download it again"
    );
    assert_eq!(result.status.code(), Some(1));
    let left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["model"], "no artifact, whole or partial");
}

#[test]
fn only_artifacts_are_replaced() {
    let compiled = Compiled::new(&[]);
    let (model, out) = (compiled.text("model"), compiled.text("other"));
    fs::create_dir(&out).unwrap();
    fs::write(compiled.path("other/precious"), "data").unwrap();
    let result = fireq(&["compile", &model, "-o", &out]);
    assert_eq!(
        String::from_utf8_lossy(&result.stderr).trim_end(),
        format!(
            "error: `{out}` exists and is not an artifact\n  \
             help: give another path, or remove what is there: only artifacts are replaced"
        )
    );
    assert_eq!(fs::read(compiled.path("other/precious")).unwrap(), b"data");
}
