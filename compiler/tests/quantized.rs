//! What a calibrated compilation says of its quantization: lines, JSON, `report.json` in the artifact, a page.

#![cfg(feature = "llvm")]

mod browser;
mod tiny;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fireq::report::{FILE, Report};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::{config, fireq, random, tensors};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/tinystories-3m");

/// Exit code, stdout and stderr.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = fireq(args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn succeed(args: &[&str]) -> String {
    let (code, out, log) = run(args);
    assert_eq!(code, Some(0), "{args:?}: {log}");
    out
}

/// Writes a model of two layers with one head of `width` channels, and the tokenizer of the demo model.
fn model(dir: &Path, width: usize) -> String {
    let mut config = config();
    for (key, value) in [("vocab_size", 1024), ("num_attention_heads", 1), ("head_dim", width)] {
        config[key] = json!(value);
    }
    let mut tensors = tensors();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        tensors.insert(name.into(), random(9, &[1024, 64]));
    }
    for layer in 0..2 {
        for (seed, name) in [(1, "q"), (2, "k"), (3, "v"), (4, "o")] {
            let shape = if name == "o" { [64, width] } else { [width, 64] };
            let name = format!("model.layers.{layer}.self_attn.{name}_proj.weight");
            tensors.insert(name, random(seed + 10 * layer, &shape));
        }
    }
    tiny::write(dir, &config, &tensors);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(MODEL).join(file), dir.join(file)).unwrap();
    }
    dir.to_str().unwrap().into()
}

/// Compiles on little text.
fn compile(model: &str, out: &Path, args: &[&str]) -> String {
    let out = out.to_str().unwrap();
    succeed(&[&["compile", model, "-o", out, "--calib-tokens", "256", "--recipe", "fireq"], args].concat())
}

#[test]
fn every_block_is_reported_and_the_report_is_one_of_the_files() {
    let temp = TempDir::new().unwrap();
    let (out, page) = (temp.path().join("out.fireq"), temp.path().join("out.html"));
    let said = compile(&model(&temp.path().join("m"), 32), &out, &["--html", page.to_str().unwrap()]);
    let text = fs::read_to_string(out.join(FILE)).unwrap();
    let report = Report::from_json(&text).unwrap();
    assert_eq!((report.recipe.as_str(), report.calibration.text.as_str()), ("fireq", "bundled stories"));
    assert_eq!((report.calibration.sequences, report.calibration.tokens_each), (4, 64));
    let firsts = ["0.self_attn.q", "0.mlp.gate", "1.self_attn.q", "1.mlp.gate"];
    let names: Vec<&str> = report.blocks.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, firsts.map(|first| format!("model.layers.{first}_proj.weight")));
    for block in &report.blocks {
        let (rtn, stream) = (block.error_rtn.unwrap(), block.stream_error.unwrap());
        for error in [block.error, rtn, stream] {
            assert!(error > 0.0 && error < 1.0, "{}: {error}", block.name);
        }
        assert_eq!(block.weights.len(), if block.name.contains("mlp") { 3 } else { 4 });
        assert_eq!(block.kv.is_some(), block.name.contains("self_attn"));
        assert!(block.weights.iter().all(|weight| weight.error > 0.0 && weight.error < 0.5));
        assert!(block.smoothing.iter().all(|site| site.error_after <= site.error_before));
        assert!(block.refused.is_empty());
    }
    assert!(report.gain().unwrap() < 1.0, "{:?}", report.gain());
    let worst = report.worst().unwrap().error;
    assert!(said.contains("times the error of round to nearest on average; worst "), "{said}");
    assert!(said.contains(&format!(", {worst:.4}\n  smoothing at ")), "{said}");
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["files"][FILE], blake3::hash(text.as_bytes()).to_hex().to_string());
    // The same page later, from the artifact alone.
    let later = temp.path().join("later.html");
    succeed(&["inspect", out.to_str().unwrap(), "--report", later.to_str().unwrap()]);
    assert!(fs::read(&later).unwrap() == fs::read(&page).unwrap());
    let page = fs::read_to_string(&page).unwrap();
    assert_eq!(browser::data(&page)["blocks"][3]["weights"][0]["label"], "1.mlp.gate_proj");
    let driver = "seen.push(look('#blocks tbody tr td:nth-child(2)'));";
    if let Some(seen) = browser::seen(&page, driver) {
        assert_eq!(seen, json!([["0.self_attn", "0.mlp", "1.self_attn", "1.mlp"]]));
    }
}

#[test]
fn the_report_depends_on_neither_threads_nor_folders() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp.path().join("m"), 32);
    let report = |threads: &str| {
        let folder = temp.path().join(threads);
        fs::create_dir(&folder).unwrap();
        let text = folder.join("text.txt");
        fs::write(&text, "Once upon a time there was a fox. ".repeat(40)).unwrap();
        let out = folder.join("out.fireq");
        compile(&model, &out, &["--threads", threads, "--calib", text.to_str().unwrap()]);
        fs::read_to_string(out.join(FILE)).unwrap()
    };
    assert!(report("1").contains("\"text\": \"text.txt\""));
    assert_eq!(fs::read_to_string(temp.path().join("1/out.fireq").join(FILE)).unwrap(), report("2"));
}

const WIDE: &str = "heads of 256 are wider than the 128 channels that one scale covers";

#[test]
fn caches_of_wide_heads_stay_and_are_named() {
    let temp = TempDir::new().unwrap();
    let (out, model) = (temp.path().join("out.fireq"), model(&temp.path().join("m"), 256));
    let said = compile(&model, &out, &[]);
    assert!(said.ends_with(&format!("  untouched k.0, k.1: {WIDE}\n")), "{said}");
    let report = Report::from_json(&fs::read_to_string(out.join(FILE)).unwrap()).unwrap();
    assert_eq!(report.refused(), [(WIDE, vec!["k.0", "k.1"])]);
    assert!(report.blocks.iter().all(|block| block.kv.is_none()));
    assert!(report.blocks[0].smoothing.iter().all(|site| !site.site.starts_with("k.")));
    // Round to nearest measures nothing, and says the same.
    let said = succeed(&["compile", &model, "-o", out.to_str().unwrap(), "--recipe", "rtn", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let refused = ["k.0", "k.1"].map(|site| json!({ "site": site, "reason": WIDE }));
    assert_eq!(said["quantization"]["refused"], json!(refused));
    assert_eq!(said["quantization"]["worst"], Value::Null);
    let page = temp.path().join("rtn.html");
    succeed(&["inspect", out.to_str().unwrap(), "--report", page.to_str().unwrap()]);
    if let Some(seen) = browser::seen(&fs::read_to_string(&page).unwrap(), "seen.push(look('#summary')[0]);")
    {
        let summary = seen[0].as_str().unwrap();
        assert!(summary.contains("calibration none") && summary.contains("left alone 2"), "{summary}");
        assert!(!summary.contains("worst"), "{summary}");
    }
    succeed(&["run", out.to_str().unwrap(), "--prompt", "Once", "-n", "2"]);
}

#[test]
fn where_nothing_was_measured_a_page_is_refused() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out.fireq");
    let (out, page) = (out.to_str().unwrap(), temp.path().join("out.html"));
    let page = page.to_str().unwrap();
    let (code, _, log) = run(&["compile", MODEL, "-o", out, "--recipe", "rtn", "--html", page]);
    let expected = "error: recipe `rtn` measures nothing that a page could show\n  \
                    help: --recipe fireq quantizes on a calibration text, and measures every block\n";
    assert_eq!((code, log.as_str()), (Some(1), expected));
    assert!(!Path::new(out).exists() && !Path::new(page).exists());
    let said = succeed(&["compile", MODEL, "-o", out, "--recipe", "rtn"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(!Path::new(out).join(FILE).exists());
    let (code, _, log) = run(&["inspect", out, "--report", page]);
    let expected = "error: the artifact has no report.json: nothing was measured when it was compiled\n  \
                    help: compile the model with --recipe fireq\n";
    assert_eq!((code, log.as_str()), (Some(1), expected));
    let (code, _, log) = run(&["inspect", MODEL, "--report", page]);
    assert_eq!(code, Some(1));
    assert!(log.contains("is no artifact, and has no report\n  help: "), "{log}");
}

/// Compiles until the first block is finished, and kills the process. Returns that block's file.
fn interrupt(args: &[&str], out: &Path) -> PathBuf {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let partial = out.with_extension("fireq.partial");
    let finished = || {
        let walk = fs::read_dir(&partial).ok()?.next()?.ok()?.path();
        Some(walk.join("0000.block")).filter(|_| walk.join("0000.streams").exists())
    };
    let block = loop {
        match finished() {
            Some(block) => break block,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(child.try_wait().unwrap().is_none(), "finished before it was interrupted");
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.exists());
    block
}

#[test]
fn a_killed_compilation_goes_on_and_gives_the_same() {
    let temp = TempDir::new().unwrap();
    let model = model(&temp.path().join("m"), 32);
    let (first, again) = (temp.path().join("first.fireq"), temp.path().join("again.fireq"));
    compile(&model, &first, &[]);
    let args =
        ["compile", &model, "-o", again.to_str().unwrap(), "--calib-tokens", "256", "--recipe", "fireq"];
    for damaged in [false, true] {
        let block = interrupt(&args, &again);
        if damaged {
            let bytes = fs::read(&block).unwrap();
            fs::write(&block, &bytes[..bytes.len() - 1]).unwrap();
        }
        let (code, _, log) = run(&args);
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(log.contains("quantized by an earlier run"), !damaged, "{log}");
        for file in [FILE, "weights.safetensors"] {
            let read = |out: &Path| fs::read(out.join(file)).unwrap();
            assert!(read(&first) == read(&again), "{file}");
        }
        assert!(!again.with_extension("fireq.partial").exists());
        fs::remove_dir_all(&again).unwrap();
    }
}

#[test]
fn what_is_no_artifact_is_not_replaced_and_that_is_said_at_once() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("mine");
    fs::create_dir(&out).unwrap();
    // Without a tokenizer: quantizing would fail.
    tiny::write(temp.path(), &config(), &tensors());
    let args = ["compile", temp.path().to_str().unwrap(), "-o", out.to_str().unwrap(), "--recipe", "fireq"];
    let (code, _, log) = run(&args);
    assert_eq!(code, Some(1));
    assert!(log.contains("exists and is not an artifact"), "{log}");
}

#[test]
fn blocks_that_are_walked_through_twice_are_reported_once() {
    let temp = TempDir::new().unwrap();
    let (out, model) = (temp.path().join("out.fireq"), model(&temp.path().join("m"), 32));
    let passes = "blocks(smooth-linears,fold-scales,quantize-weights{method=search,keep=*1.mlp.down*})";
    let args = ["compile", &model, "-o", out.to_str().unwrap(), "--calib-tokens", "256", "--passes", passes];
    let said = succeed(&args);
    let kept = "  untouched 1.mlp.down_proj: option `keep` is `*1.mlp.down*`\n";
    assert!(said.ends_with(kept), "{said}");
    let report = Report::from_json(&fs::read_to_string(out.join(FILE)).unwrap()).unwrap();
    let weights: Vec<usize> = report.blocks.iter().map(|block| block.weights.len()).collect();
    assert_eq!(weights, [4, 3, 4, 2]);
    assert!(report.blocks.iter().all(|block| block.error > 0.0 && block.error < 1.0));
}
