//! Passes: what rewrites graphs, one kind of change each.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use crate::patch::Moved;
use crate::verify::{VerifyErrors, verify};
use crate::{Graph, Patch, PatchError, RunOptions};

/// What a pass may do to the numbers; the tolerance of its tests follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Every output keeps its bits.
    Exact,
    /// Outputs differ by the order and the rounding of floating-point operations.
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
    /// The same patches, with notes that take time to find.
    fn run_explained(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        self.run(graph)
    }
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
    /// The pass has a bug.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl From<PatchError> for PassError {
    fn from(source: PatchError) -> Self {
        PassError::Patch { site: "patch".into(), source }
    }
}

/// A patch that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What it was about.
    pub site: String,
    /// Why it was the way it was.
    pub notes: Vec<String>,
}

/// Rounds after which a pass is judged not to terminate.
pub(crate) const MAX_ROUNDS: usize = 64;

/// Runs one pass until it has no more patches, then verifies. When it fails, the graph is left as the last patch made it.
pub(crate) fn run_pass(
    pass: &dyn Pass,
    graph: &mut Graph,
    RunOptions { limit, verify_each, explain }: RunOptions,
) -> Result<Vec<Applied>, PassError> {
    let mut applied = vec![];
    for _ in 0..MAX_ROUNDS {
        let patches = propose(pass, graph, explain)?;
        if patches.is_empty() || applied.len() == limit {
            verify(graph)?;
            return Ok(applied);
        }
        let (mut moved, before) = (Moved::new(), applied.len());
        let mut rest = patches.as_slice();
        // Whatever the limit, patches are applied in one and the same order.
        while !rest.is_empty() && applied.len() < limit {
            let (batch, later) =
                rest.split_at(if verify_each { 1 } else { rest.len().min(limit - applied.len()) });
            applied.extend(apply(graph, batch, &mut moved)?);
            if verify_each {
                verify(graph)?;
            }
            rest = later;
        }
        if applied.len() == before {
            return Err(PassError::Patch { site: patches[0].site.clone(), source: PatchError::Stale });
        }
    }
    Err(PassError::NoFixpoint(MAX_ROUNDS))
}

/// The patches of one round, with all their notes when `explain` is set. A pass that panics has failed, and nothing else has.
pub fn propose(pass: &dyn Pass, graph: &Graph, explain: bool) -> Result<Vec<Patch>, PassError> {
    let message = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
    };
    let run = || if explain { pass.run_explained(graph) } else { pass.run(graph) };
    catch_unwind(AssertUnwindSafe(run)).map_err(|p| PassError::Panicked(message(p)))?
}

/// Applies patches and says which: one that an earlier patch of its round left nothing to do for is proposed again in the
/// next round, if it still applies.
fn apply(graph: &mut Graph, patches: &[Patch], moved: &mut Moved) -> Result<Vec<Applied>, PassError> {
    let about: Vec<Applied> =
        patches.iter().map(|p| Applied { site: p.site.clone(), notes: p.notes.clone() }).collect();
    let refused = |(n, source): (usize, PatchError)| PassError::Patch { site: about[n].site.clone(), source };
    let applied = graph.apply_all(patches, moved).map_err(refused)?;
    Ok(about.into_iter().zip(applied).filter_map(|(patch, applied)| applied.then_some(patch)).collect())
}
