//! Which rules moved which scale.

use std::collections::BTreeMap;

use egg::{FlatTerm, Id, Language, RecExpr};
use fireq_ir::Graph;
use fireq_ir::expression::leaf_name;

use super::block::Encoded;
use super::extract::Choice;
use super::language::{Kind, Node};

/// What a block is called: by the first weight of its linears and norms.
pub(super) fn site(graph: &Graph, encoded: &Encoded) -> String {
    let weights = encoded
        .egraph
        .analysis
        .leaves
        .iter()
        .filter(|(v, ty, constant)| *constant && ty.shape.0.len() == 2 && graph.contains(*v));
    let named = weights.map(|(v, _, _)| leaf_name(graph, *v)).next();
    let scale = || encoded.egraph.analysis.vectors.first().map_or("block", |v| v.name.as_str()).to_string();
    named.map_or_else(scale, |name| name.to_string())
}

/// For each scale that moved, the rules that moved it, in order.
pub(super) fn moves(encoded: &mut Encoded, choice: &Choice) -> Vec<String> {
    let mut moved: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, id) in encoded.roots.clone() {
        let before = encoded.egraph.id_to_expr(id);
        let after = chosen(encoded, choice, id);
        let mut explanation = encoded.egraph.explain_equivalence(&before, &after);
        for term in explanation.make_flat_explanation() {
            note(encoded, term, &mut moved);
        }
    }
    moved.into_iter().map(|(scale, rules)| format!("{scale}: {}", rules.join(", "))).collect()
}

/// The chosen form of a class as an expression.
fn chosen(encoded: &Encoded, choice: &Choice, root: Id) -> RecExpr<Node> {
    let find = |id: Id| choice[&encoded.egraph.find(id)].clone();
    find(root).build_recexpr(find)
}

/// Not a move: the analysis found the numbers.
pub(super) const KNOWN: &str = "numbers multiplied";

/// Adds the rule that was applied somewhere in `term`, under the name of the scale that it moved.
fn note(encoded: &Encoded, term: &FlatTerm<Node>, moved: &mut BTreeMap<String, Vec<String>>) {
    let applied = term.forward_rule.map(|rule| rule.to_string());
    let undone = term.backward_rule.map(|rule| format!("{rule} (backwards)"));
    if let Some(rule) = applied.or(undone).filter(|rule| !rule.starts_with(KNOWN)) {
        let rules = moved.entry(scale_of(encoded, term).unwrap_or_else(|| "constants".into())).or_default();
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    term.children.iter().for_each(|child| note(encoded, child, moved));
}

/// The name of the vector that the outermost scale of a term multiplies with.
fn scale_of(encoded: &Encoded, term: &FlatTerm<Node>) -> Option<String> {
    if matches!(term.node.kind, Kind::Scale | Kind::ScaleRows) {
        return vector_name(encoded, term.children.get(1)?);
    }
    if matches!(term.node.kind, Kind::Vector(_)) {
        return vector_name(encoded, term);
    }
    term.children.iter().rev().find_map(|child| scale_of(encoded, child))
}

fn vector_name(encoded: &Encoded, term: &FlatTerm<Node>) -> Option<String> {
    match term.node.kind {
        Kind::Vector(n) => Some(encoded.egraph.analysis.vectors[n].name.clone()),
        Kind::Leaf(_) => Some("a vector without data".into()),
        _ => term.children.iter().find_map(|child| vector_name(encoded, child)),
    }
}
