//! Which quantization hurts: each site of a pipeline alone, in a model that is otherwise as it was.
//!
//! A site is a patch that a lossy pass proposes. Each is applied by itself, and what comes out is compared with the
//! unquantized model on a text; the passes of the pipeline that keep the numbers are run as they stand. Some patches exist
//! only once another was applied: the input of a linear is quantized where its weight is. Such a site is tried *upon* the
//! other, and counts with what it adds, so that sums over sites count nothing twice.
//!
//! The unquantized model runs once, on as many windows at a time as its logits fit into memory for. All sites share one
//! library of kernels and the mapped weights of the checkpoint; only what a site changes is made for it.

mod engines;
mod measure;
mod sites;

use fireq_ir::interp::InterpError;
use fireq_ir::plan::LowerError;
use fireq_ir::{Graph, Op, PassError};
use fireq_runtime::RuntimeError;
use thiserror::Error;

use crate::engine::EngineError;

pub use engines::Engines;
pub use measure::{Harm, Measured, Text, measure};
pub use sites::{Saved, Site, sites};

/// What is tried where nothing else is asked for.
pub const DEFAULT: &str = "quantize-weights,quantize-activations,quantize-kv";

/// Why sites cannot be tried one at a time.
#[derive(Debug, Error)]
pub enum BySiteError {
    /// A pass failed.
    #[error("pass `{pass}` cannot be tried site by site")]
    Pass {
        /// The pass with its options.
        pass: String,
        /// Why.
        #[source]
        source: PassError,
    },
    /// A lossy pass in a group that runs again and again.
    #[error("a patch of `{0}` does not stand alone in fixpoint(…), which repeats it")]
    Group(String),
    /// Nothing is lossy.
    #[error("no pass of `{0}` gives up precision anywhere in this model")]
    NoSites(String),
    /// A site's graph does not lower.
    #[error("`{site}` does not lower to a plan by itself")]
    Lower {
        /// The site.
        site: String,
        /// Why.
        #[source]
        source: LowerError,
    },
    /// A weight has a number that is not finite.
    #[error("tensor `{tensor}` has a NaN or infinity at element {element}")]
    NonFinite {
        /// The tensor's name.
        tensor: String,
        /// Index of the first such element.
        element: usize,
    },
    /// A weight cannot be computed.
    #[error(transparent)]
    Weight(#[from] InterpError),
    /// No code came out.
    #[error("kernels cannot be compiled: {0}")]
    Code(String),
    /// The runtime refused.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A model did not run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl BySiteError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            BySiteError::Pass { .. } => {
                "give passes that look at one site and need no calibration: leave out blocks(…), smooth-… and method=…"
            }
            BySiteError::Group(_) => "name its passes one after another, without fixpoint(…)",
            BySiteError::NoSites(_) => "give --passes with one that quantizes; `fireq passes` lists them",
            BySiteError::Lower { .. } => "give passes whose patches leave a graph that plans hold",
            BySiteError::NonFinite { .. } => {
                "the checkpoint is damaged or diverged in training: download it again"
            }
            BySiteError::Weight(_) => "the weights may be damaged: download the model again",
            BySiteError::Code(_) => {
                "`fireq doctor` says what code generation needs; --interpret does without"
            }
            BySiteError::Runtime(error) => error.hint().unwrap_or("give a smaller --ctx"),
            BySiteError::Engine(error) => error.hint(),
        }
    }
}

/// Refuses weights that are no numbers: passes and kernels count on it.
pub fn check_finite(graph: &Graph) -> Result<(), BySiteError> {
    for value in graph.schedule() {
        let Op::Const { name } = graph.op(value) else { continue };
        let bad = graph.constants.get(name).and_then(|data| data.first_non_finite(graph.ty(value).dtype));
        if let Some(element) = bad {
            return Err(BySiteError::NonFinite { tensor: name.to_string(), element });
        }
    }
    Ok(())
}
