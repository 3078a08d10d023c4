//! Pieces of a graph as graphs of their own, to be run and changed without the rest.

use std::collections::{BTreeMap, BTreeSet};

use fireq_ir::expression::constant_values;
use fireq_ir::{Graph, Op, ValueId};

/// A piece of a graph as a graph of its own. Constants and caches that it reads are part of it; every other value that it
/// reads is one of its inputs.
pub(crate) struct Piece {
    pub graph: Graph,
    /// What each input stands for.
    pub inputs: BTreeMap<String, ValueId>,
    /// Where values of the whole are in the piece.
    pub copies: BTreeMap<ValueId, ValueId>,
}

impl Piece {
    /// What `ends` are computed from, back to values that `given` holds for, to graph inputs and to constants.
    pub fn back_to(whole: &Graph, ends: &[ValueId], given: impl Fn(ValueId) -> bool) -> Self {
        let inside = inside(whole, ends, given);
        let mut piece =
            Piece { graph: Graph::new(&whole.name), inputs: BTreeMap::new(), copies: BTreeMap::new() };
        for value in whole.schedule() {
            let (op, ty) = (whole.op(value), whole.ty(value).clone());
            let copy = if inside.contains(&value) {
                let operands: Vec<ValueId> = whole.operands(value).iter().map(|v| piece.copies[v]).collect();
                piece.graph.push(op.clone(), ty, &operands)
            } else if !ends.contains(&value) && whole.users(value).iter().all(|user| !inside.contains(user)) {
                continue;
            } else if let Op::Const { name } = op {
                let data = whole.constants.get(name).cloned();
                piece.graph.constants.extend(data.map(|data| (name.clone(), data)));
                piece.graph.push(op.clone(), ty, &[])
            } else {
                let name = format!("x.{}", piece.inputs.len());
                piece.inputs.insert(name.clone(), value);
                piece.graph.input(&name, ty)
            };
            piece.copies.insert(value, copy);
        }
        piece.graph.outputs = ends.iter().map(|end| piece.copies[end]).collect();
        piece
    }

    /// What changes in `ends` when `changed` do: those and all between, with the caches and constants that this takes.
    pub fn behind(whole: &Graph, changed: &[ValueId], ends: &[ValueId]) -> Self {
        let mut behind: BTreeSet<ValueId> = changed.iter().copied().collect();
        for value in whole.schedule() {
            if whole.operands(value).iter().any(|v| behind.contains(v)) {
                behind.insert(value);
            }
        }
        let constants = constant_values(whole);
        let cached = |op: &Op| op.appends() || matches!(op, Op::Cache { .. });
        let part = |v: ValueId| behind.contains(&v) || constants.contains(&v) || cached(whole.op(v));
        Piece::back_to(whole, ends, |v| !part(v))
    }
}

/// The values that are computed in the piece.
fn inside(whole: &Graph, ends: &[ValueId], given: impl Fn(ValueId) -> bool) -> BTreeSet<ValueId> {
    let (mut inside, mut stack) = (BTreeSet::new(), ends.to_vec());
    while let Some(value) = stack.pop() {
        let source = matches!(whole.op(value), Op::Const { .. } | Op::Input { .. });
        if !source && !given(value) && inside.insert(value) {
            stack.extend(whole.operands(value));
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use fireq_ir::text::{parse_and_verify, print_graph};

    use super::*;

    const WHOLE: &str = r#"graph "g" {
  %0 = input {name="q"} : f32[T,4]
  %1 = input {name="x"} : f32[T,4]
  %2 = const {name="w"} : f32[4,4]
  %3 = linear %1, %2 : f32[T,4]
  %4 = cache {name="k.0"} : f32[P,4]
  %5 = kv_append %4, %3 : f32[P+T,4]
  %6 = cache {name="v.0"} : f32[P,4]
  %7 = kv_append %6, %1 : f32[P+T,4]
  %8 = attention %0, %5, %7 {heads=1, kv_heads=1, scale=0.5, p=f32} : f32[T,4]
  %9 = silu %8 : f32[T,4]
  return %9
}
"#;

    fn value(graph: &Graph, mnemonic: &str) -> ValueId {
        graph.schedule().into_iter().find(|v| graph.op(*v).mnemonic() == mnemonic).unwrap()
    }

    #[test]
    fn what_does_not_change_is_an_input_but_caches_are_not() {
        let whole = parse_and_verify(WHOLE).unwrap();
        let piece = Piece::behind(&whole, &[value(&whole, "attention")], &[value(&whole, "silu")]);
        assert_eq!(
            print_graph(&piece.graph),
            r#"graph "g" {
  %0 = input {name="x.0"} : f32[T,4]
  %1 = input {name="x.1"} : f32[T,4]
  %2 = input {name="x.2"} : f32[T,4]
  %3 = cache {name="k.0"} : f32[P,4]
  %4 = kv_append %3, %2 : f32[P+T,4]
  %5 = cache {name="v.0"} : f32[P,4]
  %6 = kv_append %5, %1 : f32[P+T,4]
  %7 = attention %0, %4, %6 {heads=1, kv_heads=1, scale=0.5, p=f32} : f32[T,4]
  %8 = silu %7 : f32[T,4]
  return %8
}
"#
        );
        let [q, x] = whole.inputs() else { panic!("two inputs") };
        let inputs = [("x.0", *q), ("x.1", *x), ("x.2", value(&whole, "linear"))];
        assert_eq!(piece.inputs, inputs.map(|(name, value)| (name.to_string(), value)).into());
    }

    #[test]
    fn an_end_that_is_given_is_input_and_output() {
        let whole = parse_and_verify(WHOLE).unwrap();
        let end = value(&whole, "linear");
        let piece = Piece::back_to(&whole, &[end], |v| v == end);
        assert_eq!(
            print_graph(&piece.graph),
            "graph \"g\" {\n  %0 = input {name=\"x.0\"} : f32[T,4]\n  return %0\n}\n"
        );
    }
}
