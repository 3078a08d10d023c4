//! Whole models, whose weights may be packed.

use fireq::import::{ImportOptions, import_with};
use fireq_ir::interp::eval_constant;
use fireq_ir::verify::verify;
use fireq_ir::{ConstData, Graph, Op, ValueId};

use super::{files, scratch, show};

/// `config.json`, and `model.safetensors`. What is imported is a valid graph, whose constants have as many bytes as they say, in
/// pieces as at once.
pub fn packed(bytes: &[u8]) {
    let [config, weights] = files(bytes);
    let dir = scratch::folder("packed", &[("config.json", config), ("model.safetensors", weights)]);
    let model = match import_with(&dir, ImportOptions::default()) {
        Ok(model) => model,
        Err(error) => return show(&error),
    };
    let graph = &model.graph;
    verify(graph).expect("what is imported is valid");
    for value in graph.schedule() {
        if let Op::Const { name } = graph.op(value) {
            constant(graph, value, &graph.constants[name]);
        }
    }
}

fn constant(graph: &Graph, value: ValueId, data: &ConstData) {
    let whole = data.whole().expect("the weights are here");
    assert_eq!(data.size(), Some(whole.len()));
    assert!(data.hash().is_some_and(|hash| hash.len() == 16));
    let finite = data.first_non_finite(graph.ty(value).dtype).is_none();
    match eval_constant(graph, value) {
        Ok(tensor) => assert!(finite || tensor.to_f32().is_empty() || graph.ty(value).dtype.is_code()),
        Err(error) => show(&error),
    }
    let ConstData::Decoded { source, .. } = data else { return };
    if graph.ty(value).scheme.is_plain() {
        let pieces = (0..source.rows()).flat_map(|row| source.decode(row..row + 1));
        assert!(pieces.eq(whole.iter().copied()), "rows are what they are in the whole");
    }
    data.release();
}
