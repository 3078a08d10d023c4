//! Imported models give the logits of the reference implementation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fireq::import::{ImportOptions, Model, ModelConfig, import, import_with, layout};
use fireq_ir::interp::{Data, Tensor, interpret};
use fireq_ir::verify::verify;
use fireq_ir::{DType, DimBindings, Op, ValueId};
use safetensors::SafeTensors;

const FIXTURES: [&str; 5] =
    ["llama2-mha", "llama3-gqa-scaled-rope", "mistral-mqa", "qwen2-bias-tied", "qwen3-qknorm-hd128"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture(name: &str) -> Option<PathBuf> {
    let dir = root().join("../shared/fixtures").join(name);
    if !dir.exists() {
        eprintln!("skipped: ../shared is not here");
        return None;
    }
    Some(dir)
}

/// The fixtures' references come from models cast to their weights' dtype as a whole, rope frequencies included.
#[test]
fn every_fixture_gives_its_reference_logits() {
    for dir in FIXTURES.into_iter().filter_map(fixture) {
        let rope = import(&dir).map(|model| weight_dtype(&model)).unwrap();
        let error = reference_error(&dir, ImportOptions { rope });
        assert!(error <= 1e-5, "{}: relative error {error}", dir.display());
    }
}

#[test]
fn the_demo_model_gives_its_reference_logits() {
    let error = reference_error(&root().join("tests/models/tinystories-3m"), ImportOptions::default());
    assert!(error <= 1e-3, "relative error {error}");
}

fn weight_dtype(model: &Model) -> DType {
    let graph = &model.graph;
    let embedding =
        |v: &ValueId| matches!(graph.op(*v), Op::Const { name } if &**name == "model.embed_tokens.weight");
    graph.ty(graph.schedule().into_iter().find(embedding).unwrap()).dtype
}

/// Relative L2 error of the logits of every sequence of the reference.
fn reference_error(dir: &Path, options: ImportOptions) -> f64 {
    let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let tokens = reference.tensor("tokens").unwrap();
    let expected = reference.tensor("logits").unwrap();
    let expected: Vec<f32> =
        expected.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let model = import_with(dir, options).unwrap();
    verify(&model.graph).unwrap();
    let rows = tokens.data().chunks_exact(8 * tokens.shape()[1]);
    let ids = |row: &[u8]| -> Vec<i32> {
        row.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32).collect()
    };
    let found: Vec<f32> = rows.flat_map(|row| run(&model, &ids(row))).collect();
    relative_error(&expected, &found)
}

fn run(model: &Model, ids: &[i32]) -> Vec<f32> {
    let rows: Vec<i32> = (0..ids.len() as i32).collect();
    let inputs = [("tokens", ids), ("positions", &rows), ("select", &rows)];
    let inputs = inputs.map(|(name, values)| (name.to_string(), Tensor::from_i32(values)));
    let outcome = interpret(&model.graph, &BTreeMap::from(inputs), &empty_caches(model)).unwrap();
    let Data::Float(logits) = &outcome.outputs[0].data else { panic!("logits are floats") };
    logits.clone()
}

fn empty_caches(model: &Model) -> BTreeMap<String, Tensor> {
    let graph = &model.graph;
    let caches = graph.schedule().into_iter().filter(|v| matches!(graph.op(*v), Op::Cache { .. }));
    caches
        .map(|v| {
            let mut ty = graph.ty(v).clone();
            ty.shape = ty.shape.resolve(&DimBindings::from([("P".to_string(), 0)])).unwrap();
            (graph.op(v).name().unwrap().to_string(), Tensor::empty_cache(&ty))
        })
        .collect()
}

fn relative_error(expected: &[f32], found: &[f32]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = squares(&mut expected.iter().zip(found).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    (difference / squares(&mut expected.iter().map(|v| f64::from(*v)))).sqrt()
}

/// Published configurations, of transformers 4 and 5, imply exactly the tensors that their checkpoints list.
#[test]
fn published_configurations_imply_the_tensors_of_their_checkpoints() {
    let Ok(configs) = std::fs::read_dir(root().join("../shared/configs")) else {
        eprintln!("skipped: ../shared is not here");
        return;
    };
    let mut dirs: Vec<PathBuf> = configs.map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs {
        let expected = layout(&ModelConfig::read(&dir).unwrap());
        let Ok(index) = std::fs::read(dir.join("model.safetensors.index.json")) else { continue };
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let listed = index["weight_map"].as_object().unwrap().keys().filter(|k| !k.ends_with("inv_freq"));
        let listed: BTreeSet<&String> = listed.collect();
        assert_eq!(expected.keys().collect::<BTreeSet<_>>(), listed, "{}", dir.display());
    }
}
