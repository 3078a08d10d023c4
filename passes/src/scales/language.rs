//! The e-graph's language: the operations that scales move through, by kind; everything else is a leaf.

use std::collections::BTreeMap;
use std::fmt;

use egg::{Analysis, DidMerge, EGraph, FromOp, Id, Language};
use fireq_ir::infer::infer;
use fireq_ir::{DType, Op, Shape, Type, ValueId};

/// What an e-node is. Attributes of operations are a leaf of their own and the operation's first operand, so that one
/// pattern matches every norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// A value from outside of the block, by its place in [`Facts::leaves`].
    Leaf(usize),
    /// A constant vector whose numbers are known, by its place in [`Facts::vectors`].
    Vector(usize),
    /// The attributes of an operation, by its place in [`Facts::ops`].
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
    fn plain_op(self) -> Option<Op> {
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

/// A constant vector with known numbers.
#[derive(Clone, Debug)]
pub(super) struct Vector {
    pub numbers: Vec<f32>,
    pub ty: Type,
    /// The constant of the graph that it is; `None` for one that rules made.
    pub origin: Option<ValueId>,
    /// The names of the constants that it was made of.
    pub name: String,
}

/// What is known of the values in an e-class.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    /// The type; attributes have none.
    pub ty: Option<Type>,
    /// The value depends on constants only.
    pub constant: bool,
    /// The vector that the value is.
    pub vector: Option<usize>,
    /// The operation whose attributes these are.
    pub op: Option<usize>,
}

/// The analysis: types, constants, and vectors multiplied out.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub leaves: Vec<(ValueId, Type, bool)>,
    pub ops: Vec<Op>,
    pub vectors: Vec<Vector>,
    known: BTreeMap<(DType, Vec<u32>), usize>,
}

impl Facts {
    /// The place of a vector; equal numbers of one dtype have one place.
    pub fn intern(&mut self, vector: Vector) -> usize {
        let bits = vector.numbers.iter().map(|x| x.to_bits()).collect();
        let next = self.vectors.len();
        let place = *self.known.entry((vector.ty.dtype, bits)).or_insert(next);
        if place == next {
            self.vectors.push(vector);
        }
        place
    }

    /// The place of a new f32 vector.
    pub fn derive(&mut self, numbers: Vec<f32>, name: String) -> usize {
        let ty = Type::plain(DType::F32, Shape::vector(numbers.len()));
        self.intern(Vector { numbers, ty, origin: None, name })
    }

    fn product(&mut self, a: usize, b: usize) -> usize {
        let (a, b) = (&self.vectors[a], &self.vectors[b]);
        let numbers = a.numbers.iter().zip(&b.numbers).map(|(a, b)| a * b).collect();
        let name = format!("{}·{}", a.name, b.name);
        self.derive(numbers, name)
    }
}

pub(super) type Graph = EGraph<Node, Facts>;

impl Analysis<Node> for Facts {
    type Data = Fact;

    fn make(egraph: &mut Graph, node: &Node, _: Id) -> Fact {
        let nothing = Fact { ty: None, constant: false, vector: None, op: None };
        let facts: Vec<Fact> = node.children.iter().map(|id| egraph[*id].data.clone()).collect();
        match node.kind {
            Kind::Leaf(n) => {
                let (_, ty, constant) = &egraph.analysis.leaves[n];
                Fact { ty: Some(ty.clone()), constant: *constant, ..nothing }
            }
            Kind::Vector(n) => {
                let ty = Some(egraph.analysis.vectors[n].ty.clone());
                Fact { ty, constant: true, vector: Some(n), op: None }
            }
            Kind::Attrs(n) => Fact { op: Some(n), ..nothing },
            kind => {
                let attrs = kind.has_attrs().then(|| facts[0].op.map(|n| egraph.analysis.ops[n].clone()));
                let values = if kind.has_attrs() { &facts[1..] } else { &facts };
                let types: Option<Vec<&Type>> = values.iter().map(|fact| fact.ty.as_ref()).collect();
                let op = attrs.flatten().or(kind.plain_op());
                let ty = op.zip(types).and_then(|(op, types)| infer(&op, &types).ok());
                let known = [0, 1].map(|n| facts.get(n).and_then(|fact| fact.vector));
                let vector = match known {
                    [Some(a), Some(b)] if kind == Kind::Scale => Some(egraph.analysis.product(a, b)),
                    _ => None,
                };
                Fact { ty, constant: values.iter().all(|fact| fact.constant), vector, op: None }
            }
        }
    }

    fn merge(&mut self, a: &mut Fact, b: Fact) -> DidMerge {
        let before = (a.ty.is_some(), a.constant, a.vector);
        a.ty = a.ty.take().or_else(|| b.ty.clone());
        a.constant |= b.constant;
        a.vector = a.vector.or(b.vector);
        let merged = (a.ty.is_some(), a.constant, a.vector);
        DidMerge(before != merged, merged != (b.ty.is_some(), b.constant, b.vector))
    }

    fn modify(egraph: &mut Graph, id: Id) {
        let Some(n) = egraph[id].data.vector else { return };
        let vector = egraph.add(Node { kind: Kind::Vector(n), children: vec![] });
        egraph.union_trusted(id, vector, super::explain::KNOWN);
    }
}
