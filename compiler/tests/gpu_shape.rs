//! Shapes without weights, measured on a driver whose GPU is the simulator; and steps of several sequences of what has weights.

mod simulated;
mod tiny;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use simulated::{failed, succeeded};

/// A shape of two layers, and its artifact, whose kernels the simulator finds.
struct Demo {
    temp: TempDir,
    driver: PathBuf,
    shape: String,
    artifact: String,
}

impl Demo {
    fn new() -> Option<Self> {
        let temp = TempDir::new().unwrap();
        let driver = simulated::driver(temp.path(), "shapes on a GPU")?;
        let [shape, artifact] =
            ["tiny.json", "tiny.fireq"].map(|name| temp.path().join(name).to_str().unwrap().to_string());
        fs::write(&shape, config(512, 128).to_string()).unwrap();
        let compiled =
            tiny::fireq(&["compile", "--shape", &shape, "--recipe", "fireq", "-o", &artifact, "--json"]);
        let found: Value = serde_json::from_str(&succeeded(&compiled)).unwrap();
        assert_eq!((&found["model"], &found["weightless"]), (&"tiny".into(), &true.into()));
        Some(Demo { temp, driver, shape, artifact })
    }

    /// A command on the simulated GPU, which knows the kernels of an artifact.
    fn on(&self, kernels: &str, args: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_fireq"));
        simulated::on(&mut program, &self.driver, &Path::new(kernels).join("kernels"));
        program.args(args).output().unwrap()
    }
}

fn config(vocab: usize, hidden: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden,
        "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false,
    })
}

/// Little of everything, in steps that do not hold a whole prompt.
const LITTLE: [&str; 14] = [
    "--batch",
    "1,3",
    "--after",
    "20,200",
    "--prefill",
    "24,40",
    "--prefill-batch",
    "2",
    "--step-tokens",
    "32",
    "--decode",
    "2",
    "--repeat",
    "1",
];

#[test]
fn a_shape_is_measured_with_random_weights_in_every_case_that_fits() {
    let Some(demo) = Demo::new() else { return };
    let shape = ["bench", "--shape", &demo.shape, "--random-weights", "7", "--peak", "4.8,1979"];
    let text = succeeded(&demo.on(&demo.artifact, &[&shape[..], &LITTLE].concat()));
    let rows: Vec<&str> =
        text.lines().filter(|line| line.contains(" x ") || line.contains(" after ")).collect();
    let ends = ["prefill 2 x 24", "prefill 2 x 40", "decode 1 after 20", "decode 3 after 20"];
    assert_eq!(rows.len(), 1 + 4 + 2, "{text}");
    for (row, end) in rows.iter().skip(1).zip(ends) {
        let numbers: Vec<&str> = row.strip_suffix(end).unwrap().split_whitespace().collect();
        assert!(numbers.len() == 10 && numbers[0].parse::<f64>().unwrap() > 0.0, "{row}");
    }
    assert!(text.contains("decode 3 after 200 does not fit: 205 positions, the model has 128"), "{text}");
    assert!(text.contains("tiny, random weights of seed 7, on simulated sm_90a\n"), "{text}");
    assert!(text.contains("4.80 TB/s, 1979 TFLOP/s in FP8 (--peak)"), "{text}");
}

#[test]
fn an_artifact_of_a_shape_is_measured_and_nothing_else() {
    let Some(demo) = Demo::new() else { return };
    let artifact = demo.artifact.as_str();
    let bench = ["bench", artifact, "--device", "cuda", "--json"];
    let seeded = [&bench[..], &["--random-weights", "3", "--by-kernel"], &LITTLE].concat();
    let found: Value = serde_json::from_str(&succeeded(&demo.on(artifact, &seeded))).unwrap();
    let cases = found["cases"].as_array().unwrap();
    assert_eq!(cases.iter().filter(|case| case["measured"].is_object()).count(), 4);
    let case = &cases[1];
    assert_eq!(
        [&case["kind"], &case["sequences"], &case["tokens"]],
        [&json!("prefill"), &json!(2), &json!(40)]
    );
    // 80 tokens in steps of 32.
    assert_eq!(case["measured"]["steps"], 3);
    let kernels = case["measured"]["kernels"].as_array().unwrap();
    let started: u64 = kernels.iter().map(|kernel| kernel["launches"].as_u64().unwrap()).sum();
    assert!(started > 3 * 10 && kernels.iter().all(|kernel| kernel["seconds"].as_f64().unwrap() > 0.0));
    let memory = &found["memory"]["bytes"];
    assert!(["weights", "cache", "arena", "workspace"].iter().all(|of| memory[of].as_u64().unwrap() > 0));
    let refused = "the artifact has no weights: it was compiled from a configuration alone";
    for args in [
        &["logits", artifact, "--device", "cuda", "--tokens", "1", "--compare-ops"][..],
        &["run", artifact, "--device", "cuda", "--prompt", "Once"],
        &["eval", artifact, "--device", "cuda", "--text", &demo.shape],
        &["bench", artifact, "--device", "cuda", "--prefill", "8", "--decode", "2"],
        &["bench", artifact, "--device", "cuda", "--batch", "1"],
    ] {
        let said = failed(&demo.on(artifact, args));
        assert!(said.contains(refused) && said.contains("--random-weights SEED"), "{said}");
    }
}

#[test]
fn files_of_an_artifact_of_a_shape_are_checked_as_those_of_any() {
    let Some(demo) = Demo::new() else { return };
    let weights = Path::new(&demo.artifact).join("weights.sm_90a.safetensors");
    // What follows from the configuration is there.
    let stored = fs::read(&weights).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&stored).unwrap();
    assert_eq!(tensors.names(), ["rope.inv_freq"]);
    fs::write(&weights, [&stored[..], b"\0"].concat()).unwrap();
    let bench = ["bench", &demo.artifact, "--device", "cuda", "--random-weights", "3"];
    assert!(failed(&demo.on(&demo.artifact, &bench)).contains("does not have the hash"));
}

#[test]
fn what_is_no_shape_or_too_large_is_refused_with_what_would_help() {
    let Some(demo) = Demo::new() else { return };
    let on = |shape: &str| demo.on(&demo.artifact, &["bench", "--shape", shape, "--random-weights", "1"]);
    let said = failed(&on("llama-3-8b"));
    assert!(
        said.contains("did you mean `llama3-8b`?") && said.contains("llama3.2-1b, llama3.2-3b"),
        "{said}"
    );
    let large = demo.temp.path().join("large.json");
    fs::write(&large, config(1 << 24, 8192).to_string()).unwrap();
    let said = failed(&on(large.to_str().unwrap()));
    assert!(said.contains("of weights") && said.contains("bytes of GPU memory that are free"), "{said}");
    let out = demo.temp.path().join("x").to_str().unwrap().to_string();
    let cpu = tiny::fireq(&["compile", "--shape", "llama3-8b", "--target", "cpu", "-o", &out]);
    assert!(failed(&cpu).contains("a shape has no weights"));
    let no_gpu = tiny::fireq(&["bench", &demo.artifact, "--batch", "1"]);
    assert!(failed(&no_gpu).contains("--device cuda"));
}

#[test]
fn several_sequences_of_a_model_with_weights_are_measured_too() {
    let Some(demo) = Demo::new() else { return };
    let [model, artifact] =
        ["model", "model.fireq"].map(|name| demo.temp.path().join(name).to_str().unwrap().to_string());
    tiny::write(Path::new(&model), &tiny::config(), &tiny::tensors());
    succeeded(&tiny::fireq(&["compile", &model, "--target", "sm_90a", "--recipe", "rtn", "-o", &artifact]));
    let bench = ["bench", &artifact, "--device", "cuda", "--json"];
    let found: Value =
        serde_json::from_str(&succeeded(&demo.on(&artifact, &[&bench[..], &LITTLE].concat()))).unwrap();
    assert_eq!(found["random_weights"], Value::Null);
    let fits =
        |case: &&Value| case["measured"]["tokens_per_second"].as_f64().is_some_and(|speed| speed > 0.0);
    assert_eq!(found["cases"].as_array().unwrap().iter().filter(fits).count(), 4);
}
