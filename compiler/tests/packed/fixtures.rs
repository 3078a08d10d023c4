//! Checkpoints that other tools packed, and what they say these stand for: `tests/models/packed/make.py` made them.

use std::path::Path;

use fireq::import::import;
use fireq_ir::interp::eval_constant;
use safetensors::SafeTensors;

use super::weight;

#[test]
fn weights_are_what_the_tools_that_packed_them_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/packed");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.is_dir() {
            continue;
        }
        let model = import(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in expected.iter() {
            let numbers =
                tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
            let found = eval_constant(&model.graph, weight(&model.graph, name)).unwrap().to_f32();
            assert_eq!(found, numbers, "{}: {name}", dir.display());
            seen += 1;
        }
    }
    assert!(seen == 8 * 2, "{seen} weights");
}
