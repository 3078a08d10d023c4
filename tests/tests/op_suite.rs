//! Every operation on every backend: each `tests/ops/*.ir` is compiled for each level of CPU and compared with the
//! interpreter, for one token and many, with and without a past, on one thread and two.
//!
//! Tolerance: a relative L2 error of 1e-5, the order of sums being the only freedom; 0 where the case's first line says
//! `bit-exact`. Devices that this machine does not have are skipped, and said to be.

#![cfg(feature = "llvm")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fireq_codegen::llvm::{Cpu, compile};
use fireq_ir::interp::{Data, interpret};
use fireq_ir::plan::{Lowered, Place, Step, lower, pack, pack_tensor};
use fireq_ir::text::parse_and_verify;
use fireq_ir::{ConstData, Graph};
use fireq_runtime::{Executor, Limits, Weights};
use fireq_tests::{Tensors, bindings, random_inputs, relative_error};

const TOLERANCE: f64 = 1e-5;

/// Tokens, past tokens, selected rows.
const STEPS: [(usize, usize, usize); 4] = [(1, 0, 1), (1, 37, 1), (5, 3, 2), (33, 64, 33)];

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn levels() -> Vec<Cpu> {
    let mut levels = vec![Cpu::Baseline];
    let levels_and_names =
        [(Cpu::X86V3, "x86-64-v3"), (Cpu::X86V4, "x86-64-v4"), (Cpu::X86V4Bf16, "x86-64-v4-bf16")];
    for (level, name) in levels_and_names {
        if Cpu::Host.includes(level) {
            levels.push(level);
        } else {
            eprintln!("skipped: {name}: no device");
        }
    }
    levels
}

#[test]
fn every_operation_agrees_with_the_interpreter() {
    let mut failures = vec![];
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let graph = parse_and_verify(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let tolerance = if text.lines().next().unwrap().contains("bit-exact") { 0.0 } else { TOLERANCE };
        for cpu in levels() {
            failures.extend(run_case(&name, &graph, cpu, tolerance));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn run_case(name: &str, graph: &Graph, cpu: Cpu, tolerance: f64) -> Vec<String> {
    let lowered = lower(graph).unwrap_or_else(|e| panic!("{name}: {e}"));
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("model.so");
    compile(&lowered.plan, cpu, &library).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut failures = vec![];
    for (tokens, past, selected) in STEPS {
        let (inputs, caches) = random_inputs(graph, &bindings(tokens, past, selected), 1);
        let expected = interpret(graph, &inputs, &caches).unwrap_or_else(|e| panic!("{name}: {e}"));
        for threads in [1, 2] {
            let step = Step { tokens, past, selected };
            let found = run(graph, &lowered, &library, step, threads, (&inputs, &caches));
            let error = relative_error(&expected.outputs[0].to_f32(), &found);
            if error > tolerance {
                failures.push(format!(
                    "{name} on {cpu:?}, {tokens} tokens after {past}, {threads} threads: error {error:.2e}"
                ));
            }
        }
    }
    failures
}

/// Runs a plan once, its caches filled with the past rows first.
fn run(
    graph: &Graph,
    lowered: &Lowered,
    library: &Path,
    step: Step,
    threads: usize,
    (inputs, caches): (&Tensors, &Tensors),
) -> Vec<f32> {
    let weights = Weights::Memory(weights(graph, lowered));
    let limits = Limits { tokens: step.tokens + 2, context: step.past + step.tokens + 3, threads };
    let mut executor = Executor::new(lowered.plan.clone(), weights, library, limits).unwrap();
    for (name, tensor) in inputs {
        let bytes: Vec<u8> = match &tensor.data {
            Data::Int(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            _ => tensor.to_f32().into_iter().flat_map(f32::to_le_bytes).collect(),
        };
        executor.set_input(name, &bytes).unwrap();
    }
    for buffer in &lowered.plan.buffers {
        if let Place::Cache(name) = &buffer.place {
            let parts = pack_tensor(&caches[&**name], buffer.storage).unwrap();
            executor.fill_cache(name, &parts.iter().map(|(_, bytes)| &**bytes).collect::<Vec<_>>()).unwrap();
        }
    }
    executor.run(step).unwrap();
    let rows =
        lowered.plan.buffers.iter().find(|b| matches!(b.place, Place::Output(_))).unwrap().ty.shape.rows();
    executor.output("logits", step.rows(&rows)).unwrap().to_vec()
}

fn weights(graph: &Graph, lowered: &Lowered) -> BTreeMap<String, ConstData> {
    let mut weights = BTreeMap::new();
    for buffer in &lowered.plan.buffers {
        let Place::Weight(name) = &buffer.place else { continue };
        for (part, bytes) in pack(graph, lowered.weights[name], buffer.storage).unwrap() {
            let bytes = ConstData::from_bytes(bytes.into_owned());
            weights.insert(fireq_ir::artifact::part_name(name, &part), bytes);
        }
    }
    weights
}
