//! Passes and the manager that runs them.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::verify::{VerifyErrors, verify};
use crate::{Graph, Patch, PatchError};

/// What a pass may do to the numbers; the tolerance of its tests follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Every output keeps its bits.
    Exact,
    /// Outputs differ by the order of floating-point operations.
    Reassociates,
    /// Outputs change: precision is given up.
    Lossy,
}

impl Effect {
    /// The relative L2 error of an output that tests allow: 0, 1e-5, and for lossy passes 0.5, a guard against nonsense.
    pub const fn tolerance(self) -> f64 {
        match self {
            Effect::Exact => 0.0,
            Effect::Reassociates => 1e-5,
            Effect::Lossy => 0.5,
        }
    }

    /// The name shown in the pass table.
    pub const fn name(self) -> &'static str {
        match self {
            Effect::Exact => "exact",
            Effect::Reassociates => "reassociates",
            Effect::Lossy => "lossy",
        }
    }
}

/// A rewrite of graphs: looks at a graph and proposes patches.
pub trait Pass {
    /// The name in pipelines; also names its file and its folder of cases.
    fn id(&self) -> &'static str;
    /// What it may do to the numbers.
    fn effect(&self) -> Effect;
    /// The patches for `graph`, in schedule order; none when there is nothing left to do.
    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError>;
}

/// Why a pass failed.
#[derive(Debug, Error)]
pub enum PassError {
    /// The pass met something it cannot handle.
    #[error("{site}: {reason}")]
    Refused {
        /// Where, by name.
        site: String,
        /// Why, and what would help.
        reason: String,
    },
    /// The gate refused a patch.
    #[error("{site}: {source}")]
    Patch {
        /// Where, by name.
        site: String,
        /// Why.
        source: PatchError,
    },
    /// The graph is invalid after the pass.
    #[error(transparent)]
    Invalid(#[from] VerifyErrors),
    /// The pass still has patches after many rounds.
    #[error("no fixpoint after {0} rounds")]
    NoFixpoint(usize),
}

impl From<PatchError> for PassError {
    fn from(source: PatchError) -> Self {
        PassError::Patch { site: "patch".into(), source }
    }
}

/// Rounds after which a pass is judged not to terminate.
const MAX_ROUNDS: usize = 64;

/// Runs one pass until it has no more patches, then verifies. Applies at most `limit` patches. Returns how many.
pub fn run_pass(pass: &dyn Pass, graph: &mut Graph, limit: usize) -> Result<usize, PassError> {
    let mut applied = 0;
    for _ in 0..MAX_ROUNDS {
        let patches = pass.run(graph)?;
        if patches.is_empty() || applied == limit {
            verify(graph)?;
            return Ok(applied);
        }
        let mut moved = BTreeMap::new();
        for patch in patches.into_iter().take(limit - applied) {
            let site = patch.site.clone();
            graph.apply(patch, &mut moved).map_err(|source| PassError::Patch { site, source })?;
            applied += 1;
        }
    }
    Err(PassError::NoFixpoint(MAX_ROUNDS))
}

/// Runs passes in order; `after` sees the graph after each, with the number of patches applied.
pub fn run_pipeline<E: From<PassError>>(
    passes: &[Box<dyn Pass>],
    graph: &mut Graph,
    mut limit: usize,
    mut after: impl FnMut(&dyn Pass, &Graph, usize) -> Result<(), E>,
) -> Result<(), E> {
    for pass in passes {
        let applied = run_pass(pass.as_ref(), graph, limit)?;
        limit -= applied;
        after(pass.as_ref(), graph, applied)?;
    }
    Ok(())
}
