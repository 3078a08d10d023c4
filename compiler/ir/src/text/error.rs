//! Errors in text, shown at the place where they are.

use std::fmt;
use std::ops::Range;

use thiserror::Error;

/// Something wrong at one place of a text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ParseError {
    /// What is wrong.
    pub message: String,
    /// What would be right, where that can be guessed.
    pub hint: Option<String>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub source_line: String,
    /// Bytes of the whole text that the error is about.
    pub span: Range<usize>,
}

impl ParseError {
    /// An error about bytes `span` of `text`; positions outside it are moved to its end.
    pub fn new(text: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let source_line = text[line_start..].lines().next().unwrap_or("").to_string();
        let line = text[..start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_boundary(text, span.end).max(start);
        ParseError { message: message.into(), hint: None, line, column, source_line, span: start..end }
    }

    /// The same error with what would be right.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let indent: String = self
            .source_line
            .chars()
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let rest = self.source_line.chars().count().saturating_sub(self.column - 1);
        let carets = "^".repeat(self.span.len().clamp(1, rest.max(1)));
        writeln!(f, "{}", self.message)?;
        writeln!(f, "{gutter}--> line {}, column {}", self.line, self.column)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", self.source_line)?;
        write!(f, "{gutter} | {indent}{carets}")?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n{gutter} = help: {hint}"))
    }
}

/// `did you mean …?` with the candidate nearest to `found`, when one is near.
pub fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(found, c), c)).min()?;
    (near.0 <= 1 + near.1.len() / 3).then(|| format!("did you mean `{}`?", near.1))
}
