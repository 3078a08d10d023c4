//! What must hold for any text, however damaged: the checks of the fuzz targets in `tests/fuzz`, which include this file,
//! and of the test that replays their corpus.

use fireq_ir::plan::{lower, parse_plan, print_plan, verify_plan};
use fireq_ir::text::{parse_and_verify, parse_graph, print_graph};

/// Text IR: parsing and printing are inverse, and what is valid lowers or is refused.
pub fn text_ir(text: &str) {
    let Ok(graph) = parse_graph(text) else { return };
    let printed = print_graph(&graph);
    let again = parse_graph(&printed).unwrap_or_else(|e| panic!("does not parse again: {e}\n{printed}"));
    assert_eq!(print_graph(&again), printed);
    if let Ok(graph) = parse_and_verify(text)
        && let Ok(lowered) = lower(&graph)
    {
        verify_plan(&lowered.plan).unwrap_or_else(|e| panic!("lowered to an invalid plan: {e}\n{printed}"));
    }
}

/// A pipeline as text prints as what it was parsed from means.
pub fn pipeline(text: &str) {
    let Ok(pipeline) = fireq_passes::pipeline(text) else { return };
    let printed = pipeline.to_string();
    let again =
        fireq_passes::pipeline(&printed).unwrap_or_else(|e| panic!("does not parse again: {e}\n{printed}"));
    assert_eq!(again.to_string(), printed);
}

/// A plan as text: parsing and printing are inverse, and the verifier has an answer.
pub fn plan(text: &str) {
    let Ok(plan) = parse_plan(text) else { return };
    let printed = print_plan(&plan);
    let again = parse_plan(&printed).unwrap_or_else(|e| panic!("does not parse again: {e}\n{printed}"));
    assert_eq!(print_plan(&again), printed);
    drop(verify_plan(&plan));
}
