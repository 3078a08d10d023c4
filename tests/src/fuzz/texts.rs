//! Graphs, plans, pipelines and recipes: no text makes a parser panic, and what parses has one canonical text.

use fireq_ir::plan::{Plan, lower, parse_plan, print_plan, verify_plan};
use fireq_ir::text::{parse_and_verify, parse_graph, print_graph};

use super::show;

/// A graph as text: printing what was parsed gives a text that parses and prints the same, and stays valid if it was.
/// Lowering a valid graph refuses it or gives a plan whose text parses to it.
pub fn text_ir(text: &str) {
    let printed = match parse_graph(text) {
        Ok(graph) => print_graph(&graph),
        Err(error) => return show(&error),
    };
    let again = parse_graph(&printed).unwrap_or_else(|e| panic!("what was printed does not parse: {e}"));
    assert_eq!(print_graph(&again), printed, "printed differently after parsing");
    let graph = match parse_and_verify(text) {
        Ok(graph) => graph,
        Err(error) => return show(&error),
    };
    parse_and_verify(&printed).unwrap_or_else(|e| panic!("what was printed is not valid: {e}"));
    match lower(&graph) {
        Ok(lowered) => {
            verify_plan(&lowered.plan).unwrap_or_else(|e| panic!("lowered to an invalid plan: {e}"));
            check_plan(&lowered.plan);
        }
        Err(error) => show(&error),
    }
}

/// A pipeline as text: printing what was parsed gives a text that parses and prints the same.
pub fn pipeline(text: &str) {
    match fireq_passes::pipeline(text) {
        Ok(passes) => {
            let printed = passes.to_string();
            let again = fireq_passes::pipeline(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
            assert_eq!(again.to_string(), printed, "printed differently after parsing");
        }
        Err(error) => show(&error),
    }
}

/// A recipe as text: it stands for a pipeline in the one form that is printed, or an error says where it is none.
pub fn recipe(text: &str) {
    match fireq_passes::Recipe::parse(text) {
        Ok(recipe) => {
            let text = recipe.pipeline();
            let passes = fireq_passes::pipeline(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(passes.to_string(), text, "printed differently after parsing");
        }
        Err(error) => show(&error),
    }
}

/// A plan as text: printing what was parsed gives a text that parses to the same plan.
pub fn plan(text: &str) {
    match parse_plan(text) {
        Ok(plan) => check_plan(&plan),
        Err(error) => show(&error),
    }
}

/// The plan is judged, and its text parses to it and prints the same.
fn check_plan(plan: &Plan) {
    if let Err(error) = verify_plan(plan) {
        show(&error);
    }
    let printed = print_plan(plan);
    let again = parse_plan(&printed).unwrap_or_else(|e| panic!("what was printed does not parse: {e}"));
    assert_eq!(again, *plan, "parsed to another plan");
    assert_eq!(print_plan(&again), printed, "printed differently after parsing");
}
