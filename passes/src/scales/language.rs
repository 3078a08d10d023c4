//! The e-graph's language: the operations that scales move through, by kind; everything else is a leaf.

use std::fmt;

use egg::{FromOp, Id, Language};
use fireq_ir::Op;

/// What an e-node is. Attributes of operations are a leaf of their own and the operation's first operand, so that one
/// pattern matches every norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// A value from outside of the block, by its place in [`super::facts::Facts::leaves`].
    Leaf(usize),
    /// A constant vector whose numbers are known, by its place in [`super::facts::Facts::vectors`].
    Vector(usize),
    /// The attributes of an operation, by its place in [`super::facts::Facts::ops`].
    Attrs(usize),
    Scale,
    ScaleRows,
    Linear,
    Bias,
    Silu,
    Mul,
    Rope,
    KvAppend,
    RmsNorm,
    Attention,
}

impl Kind {
    /// The kind of an operation; `None` for what scales do not move through.
    pub fn of(op: &Op) -> Option<Kind> {
        Some(match op {
            Op::Scale => Kind::Scale,
            Op::ScaleRows => Kind::ScaleRows,
            Op::Linear => Kind::Linear,
            Op::Bias => Kind::Bias,
            Op::Silu => Kind::Silu,
            Op::Mul => Kind::Mul,
            Op::Rope => Kind::Rope,
            Op::KvAppend => Kind::KvAppend,
            Op::RmsNorm { .. } => Kind::RmsNorm,
            Op::Attention { .. } => Kind::Attention,
            _ => return None,
        })
    }

    /// True when the first operand is a leaf with the attributes.
    pub fn has_attrs(self) -> bool {
        matches!(self, Kind::RmsNorm | Kind::Attention)
    }

    /// The operation without attributes.
    pub fn plain_op(self) -> Option<Op> {
        Some(match self {
            Kind::Scale => Op::Scale,
            Kind::ScaleRows => Op::ScaleRows,
            Kind::Linear => Op::Linear,
            Kind::Bias => Op::Bias,
            Kind::Silu => Op::Silu,
            Kind::Mul => Op::Mul,
            Kind::Rope => Op::Rope,
            Kind::KvAppend => Op::KvAppend,
            _ => return None,
        })
    }
}

/// An e-node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub kind: Kind,
    pub children: Vec<Id>,
}

impl Language for Node {
    type Discriminant = Kind;

    fn discriminant(&self) -> Kind {
        self.kind
    }

    fn matches(&self, other: &Self) -> bool {
        self.kind == other.kind && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.kind.plain_op()) {
            (Kind::RmsNorm, _) => f.write_str("rms_norm"),
            (Kind::Attention, _) => f.write_str("attention"),
            (_, Some(op)) => f.write_str(op.mnemonic()),
            (leaf, None) => write!(f, "{leaf:?}"),
        }
    }
}

/// Patterns name operations by their mnemonics.
impl FromOp for Node {
    type Error = String;

    fn from_op(op: &str, children: Vec<Id>) -> Result<Self, String> {
        use Kind::{Attention, Bias, KvAppend, Linear, Mul, RmsNorm, Rope, Scale, ScaleRows, Silu};
        let kinds = [Scale, ScaleRows, Linear, Bias, Silu, Mul, Rope, KvAppend, RmsNorm, Attention];
        let kind = kinds.into_iter().find(|kind| Node { kind: *kind, children: vec![] }.to_string() == op);
        kind.map(|kind| Node { kind, children }).ok_or_else(|| format!("`{op}` is not in the language"))
    }
}
