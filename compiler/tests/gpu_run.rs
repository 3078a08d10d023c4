//! `--device cuda` on a driver whose GPU is the simulator, against the same artifact on CPUs; and without a GPU.

#![cfg(feature = "llvm")]

mod simulated;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use simulated::{failed, succeeded};

/// The demo model for both kinds of machine, and a folder with the simulated driver.
struct Demo {
    temp: TempDir,
    driver: PathBuf,
    artifact: PathBuf,
}

impl Demo {
    fn new(target: &str) -> Option<Self> {
        let temp = TempDir::new().unwrap();
        let driver = simulated::driver(temp.path(), "the demo model on a GPU")?;
        let artifact = temp.path().join("m.fireq");
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/tinystories-3m");
        let mut command = fireq();
        command.arg("compile").arg(model).arg("-o").arg(&artifact);
        succeeded(&command.args(["--recipe", "rtn", "--target", target]).output().unwrap());
        Some(Demo { temp, driver, artifact })
    }

    /// A command on the artifact, on a device.
    fn on(&self, device: &str, command: &str, more: &[&str]) -> Output {
        self.with(&[], device, command, more)
    }

    /// The same, with variables that the simulated driver reads.
    fn with(&self, variables: &[(&str, &str)], device: &str, command: &str, more: &[&str]) -> Output {
        let mut program = fireq();
        simulated::on(&mut program, &self.driver, &self.artifact.join("kernels"));
        program.envs(variables.iter().copied());
        program.arg(command).arg(&self.artifact).args(["--device", device]).args(more).output().unwrap()
    }

    /// Writes a file of the artifact, and its hash into the manifest.
    fn replace(&self, file: &str, content: &str) {
        fs::write(self.artifact.join(file), content).unwrap();
        let path = self.artifact.join("manifest.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        manifest["files"][file] = blake3::hash(content.as_bytes()).to_hex().as_str().into();
        fs::write(path, manifest.to_string()).unwrap();
    }
}

fn fireq() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fireq"))
}

#[test]
fn a_batch_is_what_its_prompts_are_alone_however_many_at_once() {
    let Some(demo) = Demo::new("cpu,sm_90a") else { return };
    let file = demo.temp.path().join("batch.jsonl");
    let lines = r#"{"prompt": "Once upon a time", "tokens": 6}

        {"prompt": "The sun", "tokens": 5, "temperature": 0.8, "seed": 3}
        {"prompt": "One day, a girl named Sue went to the park. She saw a small bird.", "tokens": 3}"#;
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let on_cpu = succeeded(&demo.on("cpu", "run", &["--batch", file]));
    let expected = succeeded(&demo.on("cuda", "run", &["--batch", file, "--sequences", "1"]));
    let first: Value = serde_json::from_str(expected.lines().next().unwrap()).unwrap();
    assert_eq!((&first["tokens"], &first["end"]), (&6.into(), &"length".into()));
    assert_eq!([expected.lines().count(), on_cpu.lines().count()], [3, 3]);
    let text = succeeded(&demo.on("cuda", "run", &["--prompt", "Once upon a time", "-n", "6"]));
    assert_eq!(text.trim_end(), format!("Once upon a time{}", first["text"].as_str().unwrap()));
    for more in [["--sequences", "2"], ["--sequences", "64"], ["--no-graphs", "--sequences=64"]] {
        let found = succeeded(&demo.on("cuda", "run", &[["--batch", file], more].concat()));
        assert_eq!(found, expected);
    }
    fs::write(file, "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"n\": 1}\n").unwrap();
    let said = failed(&demo.on("cpu", "run", &["--batch", file]));
    assert!(said.contains("line 2") && said.contains("unknown field `n`"), "{said}");
}

#[test]
fn operations_are_compared_and_the_first_that_differs_is_named() {
    let Some(demo) = Demo::new("sm_90a") else { return };
    let compare = || demo.on("cuda", "logits", &["--tokens", "5,4,3,2,1,0", "--compare-ops"]);
    let said = succeeded(&compare());
    assert!(said.contains("attention") && said.contains("linear_swiglu"), "{said}");
    let program = fs::read_to_string(demo.artifact.join("kernels/program.json")).unwrap();
    // Another constant under the root of the second norm of the first layer.
    let at = program.match_indices("{\"f32\":0.00001}").nth(1).unwrap().0;
    let wrong = format!("{}{}", &program[..at], program[at..].replacen("0.00001", "0.5", 1));
    demo.replace("kernels/program.json", &wrong);
    let said = failed(&compare());
    assert!(said.contains("(norm_quantize) is the first that differs"), "{said}");
    for (right, wrong, reason) in [
        ("\"threads\":32", "\"threads\":0", "no CTAs like"),
        ("{\"buffer\":0,", "{\"buffer\":9999,", "buffer 9999 does not exist"),
        ("\"launches\"", "\"starts\"", "unknown field `starts`"),
    ] {
        demo.replace("kernels/program.json", &program.replacen(right, wrong, 1));
        let said = failed(&compare());
        assert!(said.contains("no program for GPUs") && said.contains(reason), "{said}");
    }
}

#[test]
fn launches_are_added_up_by_kernel_and_traced_on_every_device() {
    let Some(demo) = Demo::new("cpu,sm_90a") else { return };
    let trace = demo.temp.path().join("trace.json");
    for (device, linear) in [("cpu", "linear"), ("cuda", "linear_g128_t8")] {
        let options =
            ["--prefill", "6", "--decode", "2", "--repeat", "1", "--json", "--by-kernel", "--trace"];
        let options: Vec<&str> = options.into_iter().chain([trace.to_str().unwrap()]).collect();
        let found: Value = serde_json::from_str(&succeeded(&demo.on(device, "bench", &options))).unwrap();
        let kernels = found["kernels"].as_array().unwrap();
        let of_linear = kernels.iter().find(|k| k["kernel"].as_str().unwrap().starts_with(linear)).unwrap();
        assert!(of_linear["seconds"].as_f64().unwrap() > 0.0);
        let traced: Value = serde_json::from_slice(&fs::read(&trace).unwrap()).unwrap();
        let events = traced["traceEvents"].as_array().unwrap();
        let launches: u64 = kernels.iter().map(|kernel| kernel["launches"].as_u64().unwrap()).sum();
        assert_eq!(events.len() as u64, launches);
        let starts: Vec<f64> = events.iter().map(|event| event["ts"].as_f64().unwrap()).collect();
        assert!(starts.is_sorted() && starts[0] >= 0.0 && events[0]["name"] == "gather_0", "{device}");
    }
}

#[test]
fn what_cannot_run_on_a_device_is_refused_with_what_would_help() {
    let Some(demo) = Demo::new("sm_90a") else { return };
    let tokens = ["--tokens", "1", "--compare-ops"];
    let said = failed(&demo.on("cpu", "logits", &tokens));
    assert!(said.contains("for sm_90a only") && said.contains("--device cuda"), "{said}");
    let cubin = fs::read_dir(demo.artifact.join("kernels")).unwrap().map(|entry| entry.unwrap().path());
    let cubin = cubin.filter(|path| path.extension().is_some_and(|e| e == "cubin")).min().unwrap();
    fs::write(&cubin, "damaged").unwrap();
    let said = failed(&demo.on("cuda", "logits", &tokens));
    assert!(said.contains("does not have the hash"), "{said}");

    let Some(demo) = Demo::new("cpu") else { return };
    let said = failed(&demo.on("cuda", "logits", &tokens));
    assert!(said.contains("for CPUs only") && said.contains("--target cpu,sm_90a"), "{said}");
}

#[test]
fn faults_of_a_gpu_end_a_command_with_what_happened_and_no_output() {
    let Some(demo) = Demo::new("sm_90a") else { return };
    let out = demo.temp.path().join("logits.safetensors");
    let logits = ["--tokens", "3,2,1", "-o", out.to_str().unwrap()];
    // Less than the weights, and less than what is beside them.
    for bytes in ["1000000", "3600000"] {
        let said = failed(&demo.with(&[("FIREQ_SIM_MEMORY", bytes)], "cuda", "logits", &logits));
        let free = format!("more than the {bytes} bytes of GPU memory that are free");
        assert!(said.contains(" of weights, ") && said.contains(&free), "{said}");
        assert!(said.contains("ask for a shorter context"), "{said}");
    }
    let said = failed(&demo.with(&[("FIREQ_SIM_PTX", "/nowhere")], "cuda", "logits", &logits));
    assert!(said.contains("no kernel image") && said.contains("for Hopper GPUs (sm_90a)"), "{said}");

    let weights = demo.artifact.join("weights.sm_90a.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let said = failed(&demo.on("cuda", "logits", &logits));
    assert!(said.contains("`weights.sm_90a.safetensors` does not have the hash"), "{said}");
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();

    // The first norm reads from an address that nothing has.
    let program = fs::read_to_string(demo.artifact.join("kernels/program.json")).unwrap();
    let norm = program.lines().find(|line| line.contains("norm_quantize")).unwrap();
    let buffer = &norm[norm.find("{\"buffer\"").unwrap()..];
    let buffer = &buffer[..=buffer.find("}}").unwrap() + 1];
    demo.replace(
        "kernels/program.json",
        &program.replacen(norm, &norm.replacen(buffer, "\"nothing\"", 1), 1),
    );
    let prompt = ["--prompt", "Once upon", "-n", "9"];
    for (command, more) in
        [("logits", &logits[..]), ("run", &prompt), ("bench", &["--prefill=2", "--decode=2"])]
    {
        let said = failed(&demo.on("cuda", command, more));
        assert!(said.contains("kernels launched before: unspecified launch failure"), "{said}");
        assert!(said.contains("`fireq logits --compare-ops` runs one after the other"), "{said}");
    }
    assert!(!out.exists(), "no output");
    let said = failed(&demo.on("cuda", "logits", &["--tokens", "3,2,1", "--compare-ops"]));
    let symbol = &norm[norm.find("\"symbol\":\"").unwrap() + 10..];
    let symbol = &symbol[..symbol.find('"').unwrap()];
    assert!(said.contains(&format!("`{symbol}` (")) && said.contains("unspecified launch failure"), "{said}");
}

#[test]
fn without_a_driver_it_is_said_what_is_missing() {
    let Some(demo) = Demo::new("sm_90a") else { return };
    let output = fireq()
        .arg("logits")
        .arg(&demo.artifact)
        .args(["--device", "cuda", "--tokens", "1", "--compare-ops"])
        .output();
    let output = output.unwrap();
    // A machine with a driver has something to compare.
    if !output.status.success() {
        let said = failed(&output);
        assert!(said.contains("no NVIDIA driver") && said.contains("--device cpu"), "{said}");
    }
}
