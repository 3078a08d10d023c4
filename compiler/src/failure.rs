//! What the command line shows when a command fails: one message, its causes, and a hint.

use std::error::Error;
use std::fmt;
use std::io;

use fireq::by_site::BySiteError;
use fireq::compile::CompileError;
use fireq::engine::EngineError;
use fireq::export::ExportError;
use fireq::import::ImportError;
use fireq::shapes::ShapeError;
use fireq::source::SourceError;
use fireq::tokens::TokensError;
use fireq::tune::TuneError;
use fireq::watch::WatchError;
use fireq_runtime::RuntimeError;

/// A failed command. Exit code 1.
#[derive(Debug)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    closed_pipe: bool,
}

/// The result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with a message of its own.
    pub fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), causes: vec![], hint: None, closed_pipe: false }
    }

    /// An error and its chain of sources; a cause that repeats the end of the line above is left out.
    pub fn from_error(error: &dyn Error) -> Self {
        let mut failure = Failure::new(error.to_string());
        let mut last = failure.message.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !last.ends_with(&text) {
                failure.causes.push(text.clone());
            }
            last = text;
            next = cause.source();
        }
        failure
    }

    /// The same failure with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, caused while doing something.
    pub fn within(mut self, message: impl Into<String>) -> Self {
        let cause = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, cause);
        self
    }

    /// True when whoever read the output stopped reading, which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", shown(&self.message))?;
        for cause in &self.causes {
            write!(f, "\n  cause: {}", shown(cause).replace('\n', "\n         "))?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  help: {hint}"),
            None => Ok(()),
        }
    }
}

/// Bytes of a text that are shown: names in files may be of any length.
const MOST: usize = 8192;

/// A text for a terminal, which takes nothing in it for a command: names come from files that anybody made.
fn shown(text: &str) -> String {
    let end = (0..=MOST.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let harmless = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    let mut out = String::with_capacity(end);
    for c in text[..end].chars() {
        if harmless(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    if end < text.len() {
        out += &format!("… and {} bytes more", text.len() - end);
    }
    out
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        Failure::from_error(&error).hint(error.hint())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let closed_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Failure { closed_pipe, ..Failure::from_error(&error) }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Failure::from_error(&error).hint(error.hint())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::from_error(&error).hint(error.hint())
    }
}

impl From<TuneError> for Failure {
    fn from(error: TuneError) -> Self {
        Failure::from_error(&error)
            .hint("the artifact is as it was; `fireq doctor` says what of the GPU is usable")
    }
}

impl From<TokensError> for Failure {
    fn from(error: TokensError) -> Self {
        let hint =
            "text needs the model's tokenizer.json beside its weights; `fireq logits --tokens` does not";
        Failure::from_error(&error).hint(hint)
    }
}

impl From<BySiteError> for Failure {
    fn from(error: BySiteError) -> Self {
        Failure::from_error(&error).hint(error.hint())
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        Failure::from_error(&error).hint(error.hint())
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Failure::from_error(&error).hint(error.hint())
    }
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        match error {
            ShapeError::Import(error) => error.into(),
            unknown @ ShapeError::Unknown { .. } => {
                let hint = format!("shapes are {}, and files: a config.json", fireq::shapes::names());
                Failure::from_error(&unknown).hint(hint)
            }
        }
    }
}

impl From<fireq_passes::PipelineError> for Failure {
    fn from(error: fireq_passes::PipelineError) -> Self {
        Failure::from_error(&error).hint("`fireq passes` lists the passes and their options")
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        let hint = match &error {
            WatchError::Dump { .. } => "--dump-ir wants a directory that can be written",
            WatchError::Print(_) => "stderr was closed",
            WatchError::Run(_) => "--verify-numerics runs the graph on random data: use a smaller one",
            WatchError::Numerics { .. } => "--bisect finds the patch",
        };
        Failure::from_error(&error).hint(hint)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let hint = error.hint().unwrap_or("compile the model again");
        Failure::from_error(&error).hint(hint)
    }
}

impl From<fireq_passes::RecipeError> for Failure {
    fn from(error: fireq_passes::RecipeError) -> Self {
        Failure::from_error(&error).hint("--passes runs any pipeline instead of a recipe")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_are_no_commands_for_a_terminal_and_end_somewhere() {
        let failure = Failure::new("a\u{1b}]0;title\u{7}b\r\n\tc").hint("none");
        assert_eq!(failure.to_string(), "error: a\\u{1b}]0;title\\u{7}b\\r\n\tc\n  help: none");
        let long = Failure::new("é".repeat(10_000)).to_string();
        assert!(
            long.len() < 8300 && long.ends_with("é… and 11808 bytes more"),
            "{}",
            &long[long.len() - 40..]
        );
    }
}
