//! Pipelines as text: `a,b{option=value},c`.

use std::collections::BTreeMap;

use fireq_ir::Pass;
use fireq_ir::text::nearest;
use thiserror::Error;

use crate::table::{PASSES, PassInfo};

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
    #[error("`{text}`: {reason}")]
    Syntax {
        /// The part that cannot be read.
        text: String,
        /// Why.
        reason: &'static str,
    },
}

fn help(hint: Option<&String>) -> String {
    hint.map_or_else(String::new, |hint| format!("; {hint}"))
}

/// The options of one pass, defaults filled in.
pub struct Options {
    pass: &'static str,
    values: BTreeMap<String, String>,
}

impl Options {
    /// An option as text.
    pub fn text(&self, name: &str) -> Result<&str, PipelineError> {
        self.values.get(name).map(String::as_str).ok_or_else(|| self.unknown(name, None))
    }

    /// An option as a number.
    pub fn number(&self, name: &str) -> Result<usize, PipelineError> {
        let value = self.text(name)?;
        value.parse().map_err(|_| PipelineError::Value {
            pass: self.pass.into(),
            option: name.into(),
            value: value.into(),
            reason: "a whole number is wanted".into(),
        })
    }

    fn unknown(&self, option: &str, hint: Option<String>) -> PipelineError {
        PipelineError::UnknownOption { pass: self.pass.into(), option: option.into(), hint }
    }
}

/// The passes that a pipeline's text names, in order. An empty text is an empty pipeline.
///
/// ```
/// let passes = fireq_passes::pipeline("quantize-weights{group=64},quantize-kv").unwrap();
/// assert_eq!(passes.iter().map(|p| p.id()).collect::<Vec<_>>(), ["quantize-weights", "quantize-kv"]);
/// assert_eq!(
///     fireq_passes::pipeline("quantise-kv").err().unwrap().to_string(),
///     "unknown pass `quantise-kv`; did you mean `quantize-kv`?"
/// );
/// ```
pub fn pipeline(text: &str) -> Result<Vec<Box<dyn Pass>>, PipelineError> {
    let items = split(text)?;
    items.into_iter().map(build).collect()
}

/// Splits at the commas outside braces.
fn split(text: &str) -> Result<Vec<&str>, PipelineError> {
    let syntax = |reason| PipelineError::Syntax { text: text.into(), reason };
    let (mut items, mut start, mut inside) = (vec![], 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' if inside => return Err(syntax("braces cannot be nested")),
            '}' if !inside => return Err(syntax("`}` without `{`")),
            '{' | '}' => inside = !inside,
            ',' if !inside => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(syntax("`{` without `}`"));
    }
    items.push(&text[start..]);
    let items: Vec<&str> = items.into_iter().map(str::trim).collect();
    match items.as_slice() {
        [""] => Ok(vec![]),
        _ if items.contains(&"") => Err(syntax("a pass is missing between commas")),
        _ => Ok(items),
    }
}

fn build(item: &str) -> Result<Box<dyn Pass>, PipelineError> {
    let (name, options) = match item.split_once('{') {
        Some((name, rest)) => (
            name.trim(),
            rest.strip_suffix('}')
                .ok_or(PipelineError::Syntax { text: item.into(), reason: "text after `}`" })?,
        ),
        None => (item, ""),
    };
    let info = PASSES.iter().find(|p| p.id == name).ok_or_else(|| PipelineError::UnknownPass {
        name: name.into(),
        hint: nearest(name, PASSES.iter().map(|p| p.id)),
    })?;
    (info.build)(&read_options(info, options)?)
}

fn read_options(info: &PassInfo, text: &str) -> Result<Options, PipelineError> {
    let defaults = info.options.iter().map(|o| (o.name.to_string(), o.default.to_string()));
    let mut options = Options { pass: info.id, values: defaults.collect() };
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let syntax = || PipelineError::Syntax { text: item.into(), reason: "an option is `name=value`" };
        let (name, value) = item.split_once('=').ok_or_else(syntax)?;
        let (name, value) = (name.trim(), value.trim());
        if !options.values.contains_key(name) {
            return Err(options.unknown(name, nearest(name, info.options.iter().map(|o| o.name))));
        }
        options.values.insert(name.into(), value.into());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_nearest() {
        let message = |text: &str| pipeline(text).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(
            message("quantize-weigths"),
            "unknown pass `quantize-weigths`; did you mean `quantize-weights`?"
        );
        assert_eq!(
            message("quantize-weights{grup=64}"),
            "pass `quantize-weights` has no option `grup`; did you mean `group`?"
        );
        assert_eq!(
            message("quantize-weights{group=many}"),
            "pass `quantize-weights`: option `group` is `many`; a whole number is wanted"
        );
        assert_eq!(message("quantize-kv,"), "`quantize-kv,`: a pass is missing between commas");
        assert_eq!(message("quantize-kv{"), "`quantize-kv{`: `{` without `}`");
        assert_eq!(message("quantize-weights{group}"), "`group`: an option is `name=value`");
        assert_eq!(message("quantize-weights{group=64}x"), "`quantize-weights{group=64}x`: text after `}`");
    }

    #[test]
    fn an_empty_text_is_an_empty_pipeline() {
        assert!(pipeline(" ").unwrap().is_empty());
    }

    #[test]
    fn every_pass_builds_with_its_defaults_and_answers_to_its_id() {
        for info in PASSES {
            let passes = pipeline(info.id).unwrap();
            assert_eq!((passes[0].id(), passes[0].effect()), (info.id, info.effect));
        }
    }
}
