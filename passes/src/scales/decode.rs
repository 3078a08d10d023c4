//! From the chosen forms of a block back to nodes of a graph.

use std::collections::BTreeMap;

use egg::Id;
use fireq_ir::{ConstData, Graph, Op, Patch, PatchError, Ref, ValueId};

use super::block::Encoded;
use super::extract::Choice;
use super::language::{Kind, Node};
use crate::pattern::Names;

impl Encoded {
    /// Builds the chosen forms in a patch; what is in the graph already is used as it is.
    pub fn decode(
        &self,
        graph: &Graph,
        choice: &Choice,
        patch: &mut Patch,
        names: &mut Names<'_>,
    ) -> Result<(), PatchError> {
        let mut decoder = Decoder { encoded: self, graph, choice, patch, names, built: BTreeMap::new() };
        for (value, id) in &self.roots {
            let built = decoder.class(self.egraph.find(*id))?;
            if built != Ref::Old(*value) {
                decoder.patch.replace(*value, built);
            }
        }
        Ok(())
    }
}

struct Decoder<'a, 'n> {
    encoded: &'a Encoded,
    graph: &'a Graph,
    choice: &'a Choice,
    patch: &'a mut Patch,
    names: &'a mut Names<'n>,
    built: BTreeMap<Id, Ref>,
}

impl Decoder<'_, '_> {
    fn class(&mut self, id: Id) -> Result<Ref, PatchError> {
        if let Some(built) = self.built.get(&id) {
            return Ok(*built);
        }
        let node = &self.choice[&id];
        let built = match node.kind {
            Kind::Leaf(n) => self.encoded.egraph.analysis.leaves[n].0.into(),
            Kind::Vector(n) => self.vector(n),
            kind => {
                let skip = usize::from(kind.has_attrs());
                let op = self.op(node);
                let operands = node.children[skip..].iter().map(|id| self.encoded.egraph.find(*id));
                let operands = operands.collect::<Vec<_>>().into_iter().map(|id| self.class(id));
                let operands: Vec<Ref> = operands.collect::<Result<_, _>>()?;
                match self.existing(&op, &operands) {
                    Some(value) => value.into(),
                    None => self.patch.add(self.graph, op, &operands)?,
                }
            }
        };
        self.built.insert(id, built);
        Ok(built)
    }

    fn op(&self, node: &Node) -> Op {
        let facts = &self.encoded.egraph.analysis;
        let attrs = node.children.first().and_then(|id| self.encoded.egraph[*id].data.op);
        let text = node.to_string();
        attrs.map_or_else(
            || Op::build(&text, &|_| None).ok().flatten().expect("only norms and attention have attributes"),
            |n| facts.ops[n].clone(),
        )
    }

    /// A value of the graph that computes `op` on these operands.
    fn existing(&self, op: &Op, operands: &[Ref]) -> Option<ValueId> {
        let Ref::Old(first) = operands.first()? else { return None };
        let same = |user: &ValueId| {
            self.graph.op(*user) == op
                && self.graph.operands(*user).into_iter().map(Ref::Old).eq(operands.iter().copied())
        };
        self.graph.users(*first).into_iter().find(same)
    }

    fn vector(&mut self, n: usize) -> Ref {
        let vector = &self.encoded.egraph.analysis.vectors[n];
        if let Some(origin) = vector.origin {
            return origin.into();
        }
        let base = vector.name.split('·').next().unwrap_or("scale");
        let data = ConstData::from_f32(&vector.numbers);
        self.patch.constant(&self.names.fresh(base, "scaled"), vector.ty.clone(), data)
    }
}
