//! What can be wrong with pipelines and recipes.

use thiserror::Error;

/// A pipeline that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PipelineError {
    /// No pass has this name.
    #[error("unknown pass `{name}`{}", help(.hint.as_ref()))]
    UnknownPass {
        /// The name.
        name: String,
        /// The nearest name there is.
        hint: Option<String>,
    },
    /// The pass has no such option.
    #[error("pass `{pass}` has no option `{option}`{}", help(.hint.as_ref()))]
    UnknownOption {
        /// The pass.
        pass: String,
        /// The option.
        option: String,
        /// The nearest name there is.
        hint: Option<String>,
    },
    /// An option's value cannot be used.
    #[error("pass `{pass}`: option `{option}` is `{value}`; {reason}")]
    Value {
        /// The pass.
        pass: String,
        /// The option.
        option: String,
        /// Its value.
        value: String,
        /// What it must be.
        reason: String,
    },
    /// The text is not a list of passes.
    #[error("`{text}`, column {column}: {reason}")]
    Syntax {
        /// The pipeline.
        text: String,
        /// Where it goes wrong, in characters, from 1.
        column: usize,
        /// Why.
        reason: &'static str,
    },
}

fn help(hint: Option<&String>) -> String {
    hint.map_or_else(String::new, |hint| format!("; {hint}"))
}

/// No recipe and no pipeline has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown recipe `{name}`; {hint}")]
pub struct RecipeError {
    /// The name.
    pub name: String,
    /// What was probably meant, or what there is.
    pub hint: String,
}
