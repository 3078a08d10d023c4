//! Shapes of well-known models, for what needs no weights: compiling kernels, and measuring them.

use std::fs;
use std::path::{Path, PathBuf};

use fireq_ir::text::nearest;
use thiserror::Error;

use crate::import::{ImportError, ImportOptions, Model, import_config};

/// A built-in configuration.
#[derive(Debug)]
pub struct Shape {
    /// The name on the command line.
    pub name: &'static str,
    /// Its `config.json`, as far as it is read.
    pub config: &'static str,
}

/// A table of shapes, each the file of its name.
macro_rules! shapes {
    ($($name:literal),+ $(,)?) => {
        &[$(Shape { name: $name, config: include_str!(concat!("shapes/", $name, ".json")) }),+]
    };
}

/// Every built-in configuration.
pub const SHAPES: &[Shape] = shapes![
    "llama2-7b",
    "llama2-13b",
    "llama3-8b",
    "llama3-70b",
    "llama3.2-1b",
    "llama3.2-3b",
    "qwen2.5-7b",
    "tinyllama-1.1b",
];

/// Why a shape is none.
#[derive(Debug, Error)]
pub enum ShapeError {
    /// It is no name that is known, and no file.
    #[error("there is no shape `{name}`{}", hint.as_ref().map_or_else(String::new, |hint| format!(": {hint}")))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The name that is nearest.
        hint: Option<String>,
    },
    /// The file's configuration is refused.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// The graph of a shape, `bf16` weights whose data is left out: a built-in name, or a file of JSON that is a `config.json`.
/// What is `scaled` has scales behind rope, see [`import_config`].
pub fn import_named(name: &str, options: ImportOptions, scaled: bool) -> Result<Model, ShapeError> {
    if let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) {
        let path = PathBuf::from(format!("{name}.json"));
        return Ok(import_config(&path, shape.config.as_bytes(), options, scaled)?);
    }
    let path = Path::new(name);
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if !is_json {
        let hint = nearest(name, SHAPES.iter().map(|shape| shape.name));
        return Err(ShapeError::Unknown { name: name.into(), hint });
    }
    let text = fs::read(path).map_err(|source| ImportError::Read { path: path.into(), source })?;
    Ok(import_config(path, &text, options, scaled)?)
}

/// The names, for messages.
pub fn names() -> String {
    SHAPES.iter().map(|shape| shape.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_model_of_about_as_many_parameters_as_its_name_says() {
        for shape in SHAPES {
            let model = import_named(shape.name, ImportOptions::default(), true).unwrap();
            let found = crate::summary::summarize(&model.graph).parameters as f64 / 1e9;
            let digits = shape.name.rsplit('-').next().unwrap().trim_end_matches('b');
            let said: f64 = digits.parse().unwrap();
            assert!((found / said - 1.0).abs() < 0.25, "{}: {found}", shape.name);
        }
    }

    #[test]
    fn what_is_no_shape_is_refused_with_what_may_have_been_meant() {
        let said = |name: &str| import_named(name, ImportOptions::default(), false).unwrap_err().to_string();
        assert_eq!(said("llama3_8b"), "there is no shape `llama3_8b`: did you mean `llama3-8b`?");
        assert_eq!(said("a model of mine"), "there is no shape `a model of mine`");
        assert!(said("nowhere.json").contains("cannot read `nowhere.json`"));
    }
}
