//! What a patch refers to is what it referred to when it was made, whatever patches before it did to the graph.

use std::collections::BTreeMap;

use fireq_ir::text::{parse_and_verify, print_graph};
use fireq_ir::verify::verify;
use fireq_ir::{Graph, Op, Patch, PatchError, Ref, ValueId};

const BRANCHES: &str = r#"graph "branches" {
  %0 = input {name="x"} : f32[T,4]
  %1 = silu %0 : f32[T,4]
  %2 = silu %0 : f32[T,4]
  %3 = mul %1, %2 : f32[T,4]
  %4 = silu %3 : f32[T,4]
  %5 = silu %4 : f32[T,4]
  return %5
}
"#;

/// The graph and its values by printed number.
fn branches() -> (Graph, Vec<ValueId>) {
    let graph = parse_and_verify(BRANCHES).unwrap();
    let values = graph.schedule();
    (graph, values)
}

/// `op(operands…)` instead of each of `old`.
fn replacing(graph: &Graph, old: &[ValueId], op: Op, operands: &[Ref]) -> Patch {
    let mut patch = Patch::new("test");
    let new = patch.add(graph, op, operands).unwrap();
    for old in old {
        patch.replace(*old, new);
    }
    patch
}

#[test]
fn a_replacement_is_not_taken_for_the_removed_node_whose_place_it_takes() {
    let (mut graph, v) = branches();
    let patches = [
        replacing(&graph, &[v[1], v[2]], Op::Add, &[v[0].into(), v[0].into()]),
        replacing(&graph, &[v[4]], Op::Mul, &[v[3].into(), v[0].into()]),
        replacing(&graph, &[v[5]], Op::Add, &[v[4].into(), v[4].into()]),
    ];
    let mut moved = BTreeMap::new();
    for patch in patches {
        graph.apply(patch, &mut moved).unwrap();
    }
    verify(&graph).unwrap();
    assert_eq!(
        print_graph(&graph),
        r#"graph "branches" {
  %0 = input {name="x"} : f32[T,4]
  %1 = add %0, %0 : f32[T,4]
  %2 = mul %1, %1 : f32[T,4]
  %3 = mul %2, %0 : f32[T,4]
  %4 = add %3, %3 : f32[T,4]
  return %4
}
"#
    );
}

#[test]
fn a_removed_value_stays_removed_when_its_place_is_taken() {
    let (mut graph, v) = branches();
    let only_user_gone = replacing(&graph, &[v[4]], Op::Silu, &[v[0].into()]);
    let uses_removed = replacing(&graph, &[v[5]], Op::Silu, &[v[3].into()]);
    graph.apply(only_user_gone, &mut BTreeMap::new()).unwrap();
    assert!(!graph.contains(v[3]));
    let taken = graph.push(Op::Silu, graph.ty(v[0]).clone(), &[v[0]]);
    graph.push(Op::Silu, graph.ty(v[0]).clone(), &[taken]);
    assert!(!graph.contains(v[3]));
    assert_eq!(graph.apply(uses_removed, &mut BTreeMap::new()), Err(PatchError::Stale));
}

#[test]
fn two_values_merged_both_ways_become_one() {
    let (mut graph, v) = branches();
    let mut moved = BTreeMap::new();
    for (old, by) in [(v[2], v[1]), (v[1], v[2]), (v[2], v[1])] {
        let mut patch = Patch::new("merge");
        patch.replace(old, by);
        graph.apply(patch, &mut moved).unwrap();
    }
    assert!(print_graph(&graph).contains("%2 = mul %1, %1"), "{}", print_graph(&graph));
}
