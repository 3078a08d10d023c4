//! The demo model through the whole flow: compiled code against the interpreter on the same quantized graph.

#![cfg(feature = "llvm")]

use std::collections::BTreeMap;
use std::path::Path;

use fireq::build::{BuildOptions, Plans, Targets, build_anew};
use fireq::import::{Model, import};
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::llvm::Cpu;
use fireq_ir::Op;
use fireq_ir::interp::{Tensor, interpret};
use fireq_kernels::cuda::tuning::Tuning;
use fireq_runtime::{Artifact, Limits, Select, Session};
use fireq_tests::{Tensors, relative_error};

const TOKENS: [u32; 40] = [
    0, 431, 402, 260, 399, 14, 332, 283, 260, 372, 455, 406, 438, 16, 361, 484, 284, 388, 286, 268, 17, 900,
    31, 77, 512, 3, 640, 123, 45, 260, 399, 14, 700, 801, 902, 1003, 11, 22, 33, 44,
];

/// The demo model after a recipe.
fn model(recipe: &str) -> Model {
    let mut model = import(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tinystories-3m")).unwrap();
    fireq_passes::pipeline(recipe).unwrap().run(&mut model.graph).unwrap();
    model
}

/// Logits of every token by the interpreter, in steps of these sizes.
fn interpreted(model: &Model, steps: &[usize]) -> Vec<f32> {
    let graph = &model.graph;
    let mut caches: Tensors = BTreeMap::new();
    for value in graph.schedule() {
        if let Op::Cache { name } = graph.op(value) {
            caches.insert(name.to_string(), Tensor::empty_cache(graph.ty(value)));
        }
    }
    let (mut past, mut logits) = (0, vec![]);
    for count in steps {
        let ids: Vec<i32> = TOKENS[past..past + count].iter().map(|t| *t as i32).collect();
        let positions: Vec<i32> = (past..past + count).map(|p| p as i32).collect();
        let select: Vec<i32> = (0..*count as i32).collect();
        let inputs = [("tokens", &ids), ("positions", &positions), ("select", &select)];
        let inputs = inputs.map(|(name, values)| (name.to_string(), Tensor::from_i32(values))).into();
        let outcome = interpret(graph, &inputs, &caches).unwrap();
        logits.extend(outcome.outputs[0].to_f32());
        caches = outcome.caches;
        past += count;
    }
    logits
}

/// The same by compiled code.
fn compiled(artifact: &Artifact, steps: &[usize], threads: usize) -> Vec<f32> {
    let limits = Limits { tokens: 16, context: 64, threads };
    let mut session = Session::open(artifact, limits).unwrap();
    let mut logits = vec![];
    for count in steps {
        let past = session.len();
        logits.extend(session.forward(&TOKENS[past..past + count], Select::All).unwrap());
    }
    logits
}

fn check(recipe: &str, tolerance: f64) {
    let model = model(recipe);
    let plans = Plans::of(&model.graph, Targets { cpu: true, cuda: false }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for cpu in [Cpu::Host, Cpu::Baseline] {
        let out = dir.path().join(format!("{cpu:?}.fireq"));
        let options = BuildOptions {
            cpu,
            emit_llvm: false,
            cache: Cache::new(None),
            tuning: Tuning::default(),
            threads: 2,
        };
        build_anew(&model, &plans, recipe, &options, &out).unwrap();
        let artifact = Artifact::open(&out).unwrap();
        // One prefill longer than a step of the session, then single tokens.
        let steps = [32, 1, 1, 1, 1, 1, 1, 1, 1];
        let expected = interpreted(&model, &steps);
        let found = compiled(&artifact, &steps, 1);
        let error = relative_error(&expected, &found);
        eprintln!("{recipe} on {cpu:?}: relative error {error:.2e}");
        assert!(error <= tolerance, "{recipe} on {cpu:?}: relative error {error:.2e}");
        assert_eq!(found, compiled(&artifact, &steps, 2), "{recipe} on {cpu:?}: depends on threads");
    }
}

#[test]
fn unquantized_logits_agree_with_the_interpreter() {
    check("none", 1e-5);
}

#[test]
fn quantized_logits_agree_with_the_interpreter() {
    check("rtn", 1e-5);
}

#[test]
fn fused_logits_agree_with_the_interpreter() {
    check("full", 1e-5);
}
