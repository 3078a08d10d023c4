//! Models of odd sizes, fused checkpoints and every rope type, compiled: code for CPUs against transformers and the interpreter, code
//! for GPUs, which the simulator executes, against code for CPUs.

#![cfg(feature = "llvm")]

mod references;
mod simulated;

use std::path::Path;
use std::process::Command;

use fireq::build::{BuildOptions, Plans, Targets, build_anew};
use fireq::import::{Model, import_with};
use fireq::interpreted::Interpreted;
use fireq::numerics::relative_error;
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::llvm::Cpu;
use fireq_kernels::cuda::tuning::Tuning;
use fireq_runtime::{Artifact, Limits, Select, Session};
use references::Reference;
use safetensors::SafeTensors;
use simulated::succeeded;
use tempfile::TempDir;

/// The model behind a recipe's passes.
fn model(reference: &Reference, recipe: &str) -> Model {
    let dir = TempDir::new().unwrap();
    reference.write(dir.path());
    let mut model = import_with(dir.path(), reference.options()).unwrap();
    fireq_passes::pipeline(recipe).unwrap().run(&mut model.graph).unwrap();
    model
}

/// Logits of every token by compiled code, of one step and then of single tokens.
fn compiled(model: &Model, tokens: &[u32], cpu: Cpu) -> Vec<f32> {
    let out = TempDir::new().unwrap();
    let out = out.path().join("out.fireq");
    let plans = Plans::of(&model.graph, Targets { cpu: true, cuda: false }).unwrap();
    let options = BuildOptions {
        cpu,
        emit_llvm: false,
        cache: Cache::new(None),
        tuning: Tuning::default(),
        threads: 2,
    };
    build_anew(model, &plans, "test", &options, &out).unwrap();
    let limits = Limits { tokens: 64, context: tokens.len(), threads: 2 };
    let mut session = Session::open(&Artifact::open(&out).unwrap(), limits).unwrap();
    let (prompt, rest) = tokens.split_at(tokens.len() - 3);
    let mut logits = session.forward(prompt, Select::All).unwrap();
    logits.extend(rest.iter().flat_map(|token| session.forward(&[*token], Select::All).unwrap()));
    logits
}

#[test]
fn unquantized_code_reaches_every_reference() {
    for reference in Reference::all() {
        let found = compiled(&model(&reference, "none"), &reference.tokens, Cpu::Host);
        let error = relative_error(&reference.logits, &found[found.len() - reference.logits.len()..]);
        assert!(error <= 1e-5, "{}: relative error {error:.1e}", reference.name);
    }
}

#[test]
fn quantized_code_of_odd_models_agrees_with_the_interpreter() {
    for name in ["odd-9-heads", "odd-head-48", "odd-head-80", "odd-head-96", "phi3-longrope-long"] {
        let reference = Reference::named(name);
        let model = model(&reference, "rtn");
        let mut interpreted = Interpreted::new(model.graph.clone());
        let (prompt, rest) = reference.tokens.split_at(reference.tokens.len() - 3);
        let mut expected = interpreted.step(prompt, Select::All).unwrap();
        expected.extend(rest.iter().flat_map(|token| interpreted.step(&[*token], Select::All).unwrap()));
        for cpu in [Cpu::Host, Cpu::Baseline] {
            let error = relative_error(&expected, &compiled(&model, &reference.tokens, cpu));
            assert!(error <= 1e-5, "{name} on {cpu:?}: relative error {error:.1e}");
        }
    }
}

/// Codes are the same on both, and sums differ by their order only.
#[test]
fn gpu_code_of_odd_models_agrees_with_that_for_cpus() {
    let temp = TempDir::new().unwrap();
    let Some(driver) = simulated::driver(temp.path(), "odd models on a GPU") else { return };
    for name in ["odd-9-heads", "odd-head-48", "odd-head-80", "phi3-longrope-long"] {
        let reference = Reference::named(name);
        let (dir, artifact) = (temp.path().join(name), temp.path().join(format!("{name}.fireq")));
        reference.write(&dir);
        let mut compile = Command::new(env!("CARGO_BIN_EXE_fireq"));
        compile.arg("compile").arg(&dir).arg("-o").arg(&artifact);
        succeeded(&compile.args(["--recipe", "rtn", "--target", "cpu,sm_90a"]).output().unwrap());
        let [on_cpu, on_gpu] = ["cpu", "cuda"].map(|device| logits(&driver, &artifact, &reference, device));
        let error = relative_error(&on_cpu, &on_gpu);
        eprintln!("{name}: relative error {error:.1e}");
        assert!(error <= 1e-5, "{name}: relative error {error:.1e}");
    }
}

fn logits(driver: &Path, artifact: &Path, reference: &Reference, device: &str) -> Vec<f32> {
    let out = artifact.with_extension(device);
    let tokens: Vec<String> = reference.tokens.iter().map(u32::to_string).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    simulated::on(&mut command, driver, &artifact.join("kernels")).arg("logits").arg(artifact);
    let command = command.args(["--device", device, "--tokens", &tokens.join(","), "-o"]).arg(&out);
    succeeded(&command.output().unwrap());
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor("logits").unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}
