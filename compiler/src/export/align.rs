//! Which value of a graph is which tensor of a checkpoint: the graph beside the one that the configuration describes.
//!
//! Both are walked from their outputs, operation by operation. Passes round what flows between operations and put other
//! expressions where constants were, and leave the operations of the model as they are, so that both walks meet the same
//! ones. Where they do not, the graph computes something that no checkpoint of this architecture can hold.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{ConstData, DType, Graph, Op, ValueId};

use super::ExportError;

/// What a graph has for the tensors of a checkpoint, and what it rounds besides.
#[derive(Debug, Default)]
pub(super) struct Aligned {
    /// The value of each tensor, an expression over constants, by the tensor's name in the checkpoint.
    pub tensors: BTreeMap<String, ValueId>,
    /// The values of all other constants of the model, which its configuration gives: rope frequencies.
    pub others: BTreeMap<String, ValueId>,
    /// The weights whose linears read inputs in E4M3, a scale per token.
    pub inputs: BTreeSet<String>,
    /// What the graph rounds and no checkpoint says.
    pub rounded: BTreeSet<&'static str>,
}

/// Finds the tensors of `model`, a graph whose weights have no data and whose head is a tensor of its own, in `graph`, which
/// has no fused operations.
pub(super) fn align(model: &Graph, graph: &Graph) -> Result<Aligned, ExportError> {
    let mut walk = Walk { model, graph, found: Aligned::default(), scales: BTreeMap::new() };
    let mut stack: Vec<(ValueId, ValueId)> =
        model.outputs.iter().copied().zip(graph.outputs.iter().copied()).collect();
    let mut seen = BTreeSet::new();
    while let Some(pair) = stack.pop() {
        if seen.insert(pair) {
            stack.extend(walk.step(pair)?);
        }
    }
    let Walk { found, scales, .. } = walk;
    let sites =
        |behind| scales.iter().filter(|(_, is)| **is == behind).map(|(site, _)| site.clone()).collect();
    match (scales.values().any(|behind| *behind), scales.is_empty()) {
        (_, true) => Ok(found),
        (true, _) => Err(ExportError::ScalesBehindRope { caches: sites(true) }),
        (false, _) => Err(ExportError::Scales { names: sites(false) }),
    }
}

struct Walk<'a> {
    model: &'a Graph,
    graph: &'a Graph,
    found: Aligned,
    /// Scales on what flows between operations, by where they are, and whether that is behind a rope.
    scales: BTreeMap<String, bool>,
}

impl Walk<'_> {
    /// Looks at a value of the model and the one of the graph that stands for it, and returns the pairs of their operands.
    fn step(&mut self, (wanted, found): (ValueId, ValueId)) -> Result<Vec<(ValueId, ValueId)>, ExportError> {
        let op = self.model.op(wanted);
        if let Op::Const { name } = op {
            return self.tensor(name, wanted, found).map(|()| vec![]);
        }
        let (found, scales) = self.core(op, found);
        for scale in scales {
            self.scaled(op, scale);
        }
        let same = match (op, self.graph.op(found)) {
            (
                Op::Attention { heads, kv_heads, scale, .. },
                Op::Attention { heads: h, kv_heads: k, scale: s, p },
            ) => {
                self.found.rounded.extend((*p == DType::E4M3).then_some("probabilities in E4M3"));
                (heads, kv_heads, scale) == (h, k, s)
            }
            (a, b) => a == b,
        };
        let (ours, theirs) = (self.model.operands(wanted), self.graph.operands(found));
        if !same || ours.len() != theirs.len() {
            return Err(self.differs(wanted, found));
        }
        self.note(op, &ours, &theirs);
        Ok(self.pairs(op, &ours, &theirs))
    }

    /// The operation whose result `value` is, rounded and scaled, and the scales.
    fn core(&self, wanted: &Op, mut value: ValueId) -> (ValueId, Vec<ValueId>) {
        let mut scales = vec![];
        loop {
            match self.graph.op(value) {
                Op::Quantize { .. } | Op::Dequantize | Op::Fence => {}
                Op::Scale if *wanted != Op::Scale => scales.push(self.graph.operands(value)[1]),
                _ => return (value, scales),
            }
            value = self.graph.operands(value)[0];
        }
    }

    /// Notes a scale on what `wanted` gives.
    fn scaled(&mut self, wanted: &Op, scale: ValueId) {
        let name = leaf_name(self.graph, scale);
        // Smoothing names the scales of a cache's keys and queries after the cache.
        let site = name.split(".smooth").next().unwrap_or(&name);
        self.scales.insert(site.into(), *wanted == Op::Rope);
    }

    /// The pairs of operands; sums and products have theirs in either order.
    fn pairs(&self, op: &Op, ours: &[ValueId], theirs: &[ValueId]) -> Vec<(ValueId, ValueId)> {
        let alike = |pairs: &[(ValueId, ValueId)]| {
            pairs.iter().all(|(ours, theirs)| {
                let wanted = self.model.op(*ours);
                discriminant(wanted) == discriminant(self.graph.op(self.core(wanted, *theirs).0))
            })
        };
        let straight: Vec<_> = ours.iter().copied().zip(theirs.iter().copied()).collect();
        let crossed: Vec<_> = ours.iter().copied().zip(theirs.iter().rev().copied()).collect();
        match op {
            Op::Add | Op::Mul if !alike(&straight) && alike(&crossed) => crossed,
            _ => straight,
        }
    }

    /// Notes what is rounded on its way into an operation.
    fn note(&mut self, op: &Op, ours: &[ValueId], theirs: &[ValueId]) {
        let codes = |value: ValueId| self.graph.ty(value).dtype.is_code();
        let rounded = match op {
            Op::Linear if codes(theirs[0]) => {
                if let Op::Const { name } = self.model.op(ours[1]) {
                    self.found.inputs.insert(name.to_string());
                }
                None
            }
            Op::KvAppend if codes(theirs[0]) => Some("keys and values in the cache"),
            Op::Attention { .. } if codes(theirs[0]) => Some("queries in E4M3"),
            _ => None,
        };
        self.found.rounded.extend(rounded);
    }

    fn tensor(&mut self, name: &str, wanted: ValueId, found: ValueId) -> Result<(), ExportError> {
        let (shape, has) = (&self.model.ty(wanted).shape, &self.graph.ty(found).shape);
        if !is_constant(self.graph, found) || shape != has {
            return Err(self.differs(wanted, found));
        }
        let data = self.model.constants.get(name).and_then(ConstData::bytes);
        let list = if data.is_some() { &mut self.found.others } else { &mut self.found.tensors };
        list.insert(name.into(), found);
        Ok(())
    }

    fn differs(&self, wanted: ValueId, found: ValueId) -> ExportError {
        let text = |graph: &Graph, value| {
            let name = graph.op(value).name().map_or_else(String::new, |name| format!(" `{name}`"));
            format!("`{}`{name} : {}", graph.op(value).mnemonic(), graph.ty(value))
        };
        ExportError::Structure { found: text(self.graph, found), wanted: text(self.model, wanted) }
    }
}

#[cfg(test)]
mod tests {
    use fireq_ir::text::parse_graph;

    use super::*;

    const MODEL: &str = r#"graph "model" {
  %0 = input {name="x"} : f32[T,128]
  %1 = const {name="a.weight"} : bf16[128,128]
  %2 = linear %0, %1 : f32[T,128]
  %3 = silu %2 : f32[T,128]
  %4 = const {name="b.weight"} : bf16[128,128]
  %5 = linear %0, %4 : f32[T,128]
  %6 = mul %3, %5 : f32[T,128]
  %7 = add %0, %6 : f32[T,128]
  return %7
}
"#;

    /// The same, with operands of the sum and of the product in the other order, and other constants.
    const GRAPH: &str = r#"graph "model" {
  %0 = input {name="x"} : f32[T,128]
  %1 = quantize %0 {to=e4m3<row:f32>} : e4m3<row:f32>[T,128]
  %2 = const {name="b.weight.i4"} : i4<g128:e4m3,row:f32>[128,128]
  %3 = linear %1, %2 : f32[T,128]
  %4 = const {name="a.weight"} : bf16[128,128]
  %5 = linear %0, %4 : f32[T,128]
  %6 = silu %5 : f32[T,128]
  %7 = mul %3, %6 : f32[T,128]
  %8 = add %7, %0 : f32[T,128]
  return %8
}
"#;

    fn aligned(graph: &str) -> Result<Aligned, String> {
        let [model, graph] = [MODEL, graph].map(|text| parse_graph(text).unwrap());
        let found = align(&model, &graph).map_err(|error| error.to_string())?;
        let leaves = found.tensors.iter().map(|(name, value)| (name.clone(), leaf_name(&graph, *value)));
        assert!(
            leaves.clone().all(|(name, leaf)| leaf.starts_with(&name)),
            "{:?}",
            leaves.collect::<Vec<_>>()
        );
        Ok(found)
    }

    #[test]
    fn weights_are_found_behind_roundings_and_in_either_order() {
        for graph in [MODEL, GRAPH] {
            let found = aligned(graph).unwrap();
            assert_eq!(found.tensors.keys().collect::<Vec<_>>(), ["a.weight", "b.weight"]);
            assert_eq!(found.inputs.contains("b.weight"), graph == GRAPH);
            assert!(!found.inputs.contains("a.weight"));
        }
    }

    #[test]
    fn what_a_model_does_not_do_is_refused() {
        let other = MODEL.replace("silu %2", "add %2, %0");
        assert_eq!(
            aligned(&other).unwrap_err(),
            "the graph has `add` : f32[T,128] where config.json implies `silu` : f32[T,128]"
        );
        let scaled = MODEL.replace("linear %0, %4", "linear %9, %4").replace(
            "  %5 =",
            "  %8 = const {name=\"lambda\", hash=\"00\"} : f32[128]\n  %9 = scale %0, %8 : f32[T,128]\n  %5 =",
        );
        assert_eq!(aligned(&scaled).unwrap_err(), "the graph has scales that are part of no weight: lambda");
    }
}
