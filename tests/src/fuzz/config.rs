//! `config.json` and `generation_config.json`.

use std::path::Path;

use fireq::import::{ImportOptions, ModelConfig, import_config, import_shape, layout};
use fireq_ir::DType;
use fireq_ir::verify::verify;

use super::{files, scratch, show};

/// Blocks of graphs that are built: more of them take longer and are like these.
const LAYERS: usize = 3;

/// What is taken for a configuration has sizes whose products fit, and its graph is valid.
pub fn config(bytes: &[u8]) {
    let [config, generation] = files(bytes);
    let path = Path::new("folder/config.json");
    let parsed = match ModelConfig::parse(path, config, None) {
        Ok(parsed) => parsed,
        Err(error) => return show(&error),
    };
    if parsed.layers > LAYERS {
        return;
    }
    for shape in layout(&parsed).values() {
        let elements = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        assert!(elements.is_some_and(|n| n > 0), "{shape:?}");
    }
    for (scaled, rope, context) in [(false, DType::F32, None), (true, DType::BF16, Some(64))] {
        match import_config(path, config, ImportOptions { rope, context }, scaled) {
            Ok(model) => verify(&model.graph).expect("what is imported is valid"),
            Err(error) => show(&error),
        }
    }
    let files = [("config.json", config), ("generation_config.json", generation)];
    let files = if generation.is_empty() { &files[..1] } else { &files };
    if let Err(error) = import_shape(&scratch::folder("config", files), ImportOptions::default()) {
        show(&error);
    }
}
