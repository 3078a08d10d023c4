//! Diagonal scales in an e-graph: the language, the rules, and extraction. One block of a graph at a time.
//!
//! Laws for rules: a rule is an identity of real numbers on values of equal types; what must hold is a fact of the
//! analysis, never a guess; nothing lossy is a rule, or the cheapest bits would always win; a rule does not make what
//! another undoes grow without end; every rule has a case in `tests/ir/fold-scales` that fires, and one that must not
//! where it has a condition.

mod block;
mod decode;
mod explain;
mod extract;
mod facts;
mod language;
mod rules;

use egg::{Runner, StopReason};
use fireq_ir::{Graph, Patch, PatchError};

use crate::pattern::Names;
use block::{Block, blocks};

/// The patches that fold the scales of a graph, one for each block that gets cheaper. The search in a block stops at
/// `node_limit` e-nodes. With `explain`, their notes say which rules moved each scale: finding that takes most of the time.
pub(crate) fn fold(graph: &Graph, node_limit: usize, explain: bool) -> Result<Vec<Patch>, PatchError> {
    let search = Search { rules: rules::rules(), node_limit, explain };
    let mut names = Names::new(graph);
    let patches = blocks(graph).into_iter();
    patches.filter_map(|block| fold_block(graph, &block, &search, &mut names).transpose()).collect()
}

/// The names of the rules, as notes of patches give them.
pub fn scale_rules() -> Vec<String> {
    rules::rules().iter().map(|rule| rule.name.to_string()).collect()
}

/// Rounds of rules: each moves a scale by one operation, and blocks are some twenty operations long.
const MAX_ROUNDS: usize = 100;

/// How blocks are searched.
struct Search {
    rules: Vec<rules::Rule>,
    node_limit: usize,
    explain: bool,
}

fn fold_block(
    graph: &Graph,
    block: &Block,
    search: &Search,
    names: &mut Names<'_>,
) -> Result<Option<Patch>, PatchError> {
    let mut encoded = block.encode(graph, search.explain);
    let runner = Runner::<_, _, ()>::new(facts::Facts::default())
        .with_egraph(std::mem::take(&mut encoded.egraph))
        .with_scheduler(rules::scheduler())
        .with_iter_limit(MAX_ROUNDS)
        .with_node_limit(search.node_limit)
        // What is found must not depend on the speed of a machine.
        .with_time_limit(std::time::Duration::MAX)
        .run(&search.rules);
    encoded.egraph = runner.egraph;
    let (known, cost) = encoded.known(block);
    let roots: Vec<egg::Id> = encoded.roots.iter().map(|(_, id)| *id).collect();
    let Some((choice, found)) = extract::extract(&encoded.egraph, &roots, &known) else { return Ok(None) };
    if found >= cost {
        return Ok(None);
    }
    let mut patch = Patch::new(explain::site(graph, &encoded));
    encoded.decode(graph, &choice, &mut patch, names)?;
    if search.explain {
        patch.notes = explain::moves(&mut encoded, &choice);
    }
    patch.notes.push(format!(
        "{} after {} rounds",
        stop(runner.stop_reason.as_ref()),
        runner.iterations.len()
    ));
    Ok(Some(patch))
}

fn stop(reason: Option<&StopReason>) -> String {
    match reason {
        Some(StopReason::Saturated) => "every form was found".into(),
        Some(StopReason::NodeLimit(n)) => format!("the search stopped at {n} e-nodes"),
        Some(StopReason::IterationLimit(n)) => format!("the search stopped after {n} rounds"),
        other => format!("the search stopped: {other:?}"),
    }
}
