//! Opening the model that a command executes.

use std::path::{Path, PathBuf};

use fireq::engine::{Backend, Engine};
use fireq::import::import_with;
use fireq::interpreted::Interpreted;
use fireq::source::{Source, classify};
use fireq::tokens::Tokens;

use crate::cli::{Executed, Import};
use crate::failure::{Failure, Outcome};

/// A model ready to run, with what its directory says about text.
pub struct Opened {
    /// Its name.
    pub name: String,
    /// Executes it.
    pub engine: Engine,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    bos: Option<u32>,
    dir: PathBuf,
}

impl Opened {
    /// The model's tokenizer.
    pub fn tokens(&self) -> Outcome<Tokens> {
        Ok(Tokens::load(&self.dir, self.bos)?)
    }
}

/// Opens what `options` name.
pub fn open(options: &Executed) -> Outcome<Opened> {
    if options.device != "cpu" {
        let message = format!("device `{}` is not supported by this build yet", options.device);
        return Err(Failure::new(message).hint("use --device cpu"));
    }
    set_threads(options.threads)?;
    open_path(&options.model, options.interpret, options.import)
}

/// Opens a model directory or an artifact.
pub fn open_path(path: &Path, interpret: bool, import: Import) -> Outcome<Opened> {
    match classify(path)? {
        Source::ModelDir if interpret => open_interpreted(path, import),
        Source::Ir => {
            let message = format!("`{}` is text IR, which has no weights to run", path.display());
            Err(Failure::new(message).hint("give the model directory or the artifact it came from"))
        }
        _ => {
            let message = "compiled models are not supported by this build yet";
            Err(Failure::new(message).hint("give a model directory and --interpret"))
        }
    }
}

fn open_interpreted(dir: &Path, import: Import) -> Outcome<Opened> {
    let model = import_with(dir, import.options())?;
    let backend = Backend::Interpreter(Interpreted::new(model.graph));
    Ok(Opened {
        engine: Engine::new(backend, model.config.vocab, model.config.context),
        name: model.config.name,
        eos: model.config.eos,
        bos: model.config.bos,
        dir: dir.into(),
    })
}

/// Sets the number of threads of everything that runs in parallel.
pub fn set_threads(threads: Option<usize>) -> Outcome {
    let Some(threads) = threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build_global();
    pool.map_err(|e| Failure::from_error(&e).within("cannot start threads"))
}
