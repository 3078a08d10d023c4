//! Pipelines as text: `a,b{option=value},c`.

use std::collections::BTreeMap;

use fireq_ir::Pass;
use fireq_ir::text::nearest;

use crate::error::PipelineError;
use crate::table::{PASSES, PassInfo};

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
        self.text(name)?.parse().map_err(|_| self.refuse(name, "a whole number is wanted"))
    }

    /// The error for a value that a pass cannot use.
    pub fn refuse(&self, name: &str, reason: impl Into<String>) -> PipelineError {
        let value = self.values.get(name).cloned().unwrap_or_default();
        PipelineError::Value { pass: self.pass.into(), option: name.into(), value, reason: reason.into() }
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
    items.into_iter().map(|(at, item)| build(text, at, item)).collect()
}

/// Something that is not a list of passes, at byte `at` of `text`.
fn syntax(text: &str, at: usize, reason: &'static str) -> PipelineError {
    PipelineError::Syntax { text: text.into(), column: text[..at].chars().count() + 1, reason }
}

/// The passes with their options as text, each with the byte it starts at: split at the commas outside braces.
fn split(text: &str) -> Result<Vec<(usize, &str)>, PipelineError> {
    let (mut items, mut start, mut open) = (vec![], 0, None);
    for (at, c) in text.char_indices() {
        match (c, open) {
            ('{', Some(_)) => return Err(syntax(text, at, "braces cannot be nested")),
            ('}', None) => return Err(syntax(text, at, "`}` without `{`")),
            ('{', None) => open = Some(at),
            ('}', Some(_)) => open = None,
            (',', None) => {
                items.push((start, &text[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    if let Some(at) = open {
        return Err(syntax(text, at, "`{` without `}`"));
    }
    items.push((start, &text[start..]));
    match items.iter().find(|(_, item)| item.trim().is_empty()) {
        Some(_) if items.len() == 1 => Ok(vec![]),
        Some((at, _)) => Err(syntax(text, *at, "a pass is missing between commas")),
        None => Ok(items),
    }
}

fn build(text: &str, at: usize, item: &str) -> Result<Box<dyn Pass>, PipelineError> {
    let (name, braced) = item.split_at(item.find('{').unwrap_or(item.len()));
    let options = match braced.split_once('}') {
        Some((_, rest)) if !rest.trim().is_empty() => {
            return Err(syntax(text, at + item.len() - rest.len(), "text after `}`"));
        }
        Some((options, _)) => &options[1..],
        None => "",
    };
    let name = name.trim();
    let info = PASSES.iter().find(|p| p.id == name).ok_or_else(|| PipelineError::UnknownPass {
        name: name.into(),
        hint: nearest(name, PASSES.iter().map(|p| p.id)),
    })?;
    (info.build)(&read_options(info, text, at + item.find('{').map_or(0, |brace| brace + 1), options)?)
}

/// The options in `braced`, which starts at byte `at` of `text`.
fn read_options(info: &PassInfo, text: &str, mut at: usize, braced: &str) -> Result<Options, PipelineError> {
    let defaults = info.options.iter().map(|o| (o.name.to_string(), o.default.to_string()));
    let mut options = Options { pass: info.id, values: defaults.collect() };
    for item in braced.split(',') {
        let start = at;
        at += item.len() + 1;
        if item.trim().is_empty() {
            continue;
        }
        let (name, value) =
            item.split_once('=').ok_or_else(|| syntax(text, start, "an option is `name=value`"))?;
        let (name, value) = (name.trim(), value.trim());
        if !options.values.contains_key(name) {
            return Err(options.unknown(name, nearest(name, info.options.iter().map(|o| o.name))));
        }
        options.values.insert(name.into(), value.into());
    }
    Ok(options)
}
