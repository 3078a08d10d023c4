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
        write!(f, "error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  cause: {}", cause.replace('\n', "\n         "))?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  help: {hint}"),
            None => Ok(()),
        }
    }
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
