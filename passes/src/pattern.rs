//! What passes ask of a graph again and again.

use std::collections::BTreeSet;
use std::sync::Arc;

use fireq_ir::{ConstData, DType, Graph, Op, Patch, Ref, Shape, Type, ValueId};

/// True when one operand slot of one operation reads a value, and nothing else does: it may be fused into its user.
pub(crate) fn used_once(graph: &Graph, value: ValueId) -> bool {
    let users = graph.users(value);
    let slots = |user: &ValueId| graph.operands(*user).iter().filter(|v| **v == value).count();
    users.len() == 1 && slots(&users[0]) == 1 && !graph.outputs.contains(&value)
}

/// The operands of a value that is used once and computed by `op`.
pub(crate) fn fusible(graph: &Graph, value: ValueId, op: impl Fn(&Op) -> bool) -> Option<Vec<ValueId>> {
    (op(graph.op(value)) && used_once(graph, value)).then(|| graph.operands(value))
}

/// The numbers of a constant, where they are there.
pub(crate) fn numbers(graph: &Graph, value: ValueId) -> Option<Vec<f32>> {
    let Op::Const { name } = graph.op(value) else { return None };
    graph.constants.get(name)?.numbers(graph.ty(value).dtype)
}

/// True for an f32 constant whose numbers are there and all 1.
pub(crate) fn is_ones(graph: &Graph, value: ValueId) -> bool {
    numbers(graph, value).is_some_and(|numbers| numbers.iter().all(|x| *x == 1.0))
}

/// New names of constants for one run of a pass: patches of one run must not give the same name to two.
pub(crate) struct Names<'a> {
    graph: &'a Graph,
    given: BTreeSet<Arc<str>>,
}

impl<'a> Names<'a> {
    pub fn new(graph: &'a Graph) -> Self {
        Names { graph, given: BTreeSet::new() }
    }

    /// A new constant with these numbers, named `base.suffix`.
    pub fn vector(&mut self, patch: &mut Patch, base: &str, suffix: &str, numbers: &[f32]) -> Ref {
        let ty = Type::plain(DType::F32, Shape::vector(numbers.len()));
        patch.constant(&self.fresh(base, suffix), ty, ConstData::from_f32(numbers))
    }

    /// `base.suffix`, numbered where that is taken.
    pub fn fresh(&mut self, base: &str, suffix: &str) -> Arc<str> {
        let base = base.strip_suffix(&format!(".{suffix}")).unwrap_or(base);
        let first = std::iter::once(format!("{base}.{suffix}"));
        let mut names = first.chain((2..).map(|n| format!("{base}.{suffix}.{n}")));
        let free = |name: &String| {
            !self.graph.constants.contains_key(name.as_str()) && !self.given.contains(name.as_str())
        };
        let name: Arc<str> = names.find(free).unwrap_or_default().into();
        self.given.insert(name.clone());
        name
    }
}
