//! `fireq opt --bisect`: names the patch that breaks a graph.

use fireq::bisect::{BisectError, Check, bisect as find};
use fireq_ir::{Graph, Pipeline};

use super::output::emit;
use crate::failure::{Failure, Outcome};

/// Prints the first patch after which `check` fails.
pub fn bisect(pipeline: &Pipeline, graph: &Graph, check: &Check) -> Outcome {
    let found = find(pipeline, graph, check).map_err(|error| {
        Failure::from_error(&error).hint(match error {
            BisectError::WrongBefore(_) => "a patch can only be blamed when the check holds without it",
            BisectError::Run(_) => {
                "use a smaller graph, or --bisect-command with a check that does not run it"
            }
            BisectError::Command(_) => "--bisect-command is run by `sh -c`",
        })
    })?;
    match found {
        Some(found) => emit(&found.to_string()),
        None => emit("nothing is wrong after any patch\n"),
    }
}
