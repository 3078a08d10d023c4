//! The e-graph's analysis: types, what is constant, and vectors multiplied out.

use std::collections::BTreeMap;

use egg::{Analysis, DidMerge, EGraph, Id};
use fireq_ir::infer::infer;
use fireq_ir::{DType, Op, Shape, Type, ValueId};

use super::language::{Kind, Node};

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
