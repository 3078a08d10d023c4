//! Patches: the unit of change, and the one gate that applies them.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::infer::{InferError, infer};
use crate::{ConstData, Graph, Op, Type, ValueId};

/// A value that a patch refers to: one of the graph, or one that the patch adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ref {
    /// A value of the graph.
    Old(ValueId),
    /// The n-th node that the patch adds.
    New(usize),
}

impl From<ValueId> for Ref {
    fn from(value: ValueId) -> Self {
        Ref::Old(value)
    }
}

/// New nodes, and values that they replace. Nothing changes until [`Graph::apply`].
#[derive(Clone, Debug)]
pub struct Patch {
    /// What the patch is about, for logs: the site, by name.
    pub site: String,
    /// Why it is the way it is, for people: what `--explain` prints.
    pub notes: Vec<String>,
    nodes: Vec<(Op, Type, Vec<Ref>)>,
    constants: BTreeMap<Arc<str>, ConstData>,
    replacements: Vec<(ValueId, Ref)>,
    removals: Vec<ValueId>,
}

/// Why a patch was refused. The graph is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// A new operation does not fit its operands.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The replacement has another type.
    #[error("replaces a value of type {old} by one of type {new}")]
    TypeChange {
        /// Type of the replaced value.
        old: String,
        /// Type of its replacement.
        new: String,
    },
    /// The patch names a value that the graph no longer has.
    #[error("refers to a value that is no longer in the graph")]
    Stale,
    /// The replaced value is an ancestor of its replacement through more than the patch's own nodes.
    #[error("makes a value depend on itself")]
    Cycle,
    /// A constant of that name exists with other data.
    #[error("adds a second constant named `{0}`")]
    DuplicateConstant(String),
    /// The same value is replaced twice.
    #[error("replaces the same value twice")]
    ReplacedTwice,
}

impl Patch {
    /// An empty patch about `site`.
    pub fn new(site: impl Into<String>) -> Self {
        Patch {
            site: site.into(),
            notes: vec![],
            nodes: vec![],
            constants: BTreeMap::new(),
            replacements: vec![],
            removals: vec![],
        }
    }

    /// Adds an operation; its type is inferred.
    pub fn add(&mut self, graph: &Graph, op: Op, operands: &[Ref]) -> Result<Ref, PatchError> {
        let types: Vec<&Type> =
            operands.iter().map(|r| self.ty(graph, *r)).collect::<Option<_>>().ok_or(PatchError::Stale)?;
        let ty = infer(&op, &types)?;
        Ok(self.push(op, ty, operands))
    }

    /// Adds a constant with its data.
    pub fn constant(&mut self, name: &str, ty: Type, data: ConstData) -> Ref {
        self.constants.insert(name.into(), data);
        self.push(Op::Const { name: name.into() }, ty, &[])
    }

    /// Adds the state of a KV cache of a declared type.
    pub fn cache(&mut self, name: Arc<str>, ty: Type) -> Ref {
        self.push(Op::Cache { name }, ty, &[])
    }

    /// Replaces `old` by `new` for all its users.
    pub fn replace(&mut self, old: ValueId, new: impl Into<Ref>) {
        self.replacements.push((old, new.into()));
    }

    /// Removes `value`, and whatever only it used, where nothing else uses it. Inputs, outputs and what is appended to
    /// caches stay.
    pub fn remove(&mut self, value: ValueId) {
        self.removals.push(value);
    }

    fn push(&mut self, op: Op, ty: Type, operands: &[Ref]) -> Ref {
        self.nodes.push((op, ty, operands.to_vec()));
        Ref::New(self.nodes.len() - 1)
    }

    fn ty<'a>(&'a self, graph: &'a Graph, value: Ref) -> Option<&'a Type> {
        match value {
            Ref::Old(id) => graph.contains(id).then(|| graph.ty(id)),
            Ref::New(n) => self.nodes.get(n).map(|(_, ty, _)| ty),
        }
    }
}

/// Where values went that patches replaced.
pub type Moved = BTreeMap<ValueId, ValueId>;

impl Graph {
    /// Applies a patch, or refuses it and leaves the graph as it was. New nodes that use a replaced value keep using
    /// the old one. What nobody uses any more is removed. `moved` follows values that earlier patches replaced.
    pub fn apply(&mut self, patch: Patch, moved: &mut Moved) -> Result<(), PatchError> {
        match self.apply_all(&[patch], moved).map_err(|(_, error)| error)?[..] {
            [true] => Ok(()),
            _ => Err(PatchError::Stale),
        }
    }

    /// Applies patches in order, or refuses all of them; an error comes with the index of the patch that is wrong. A patch
    /// that refers to what is no longer there, because an earlier one took it away, is left out. Says which were applied.
    pub fn apply_all(
        &mut self,
        patches: &[Patch],
        moved: &mut Moved,
    ) -> Result<Vec<bool>, (usize, PatchError)> {
        let before = (self.clone(), moved.clone());
        let mut applied = self.rewrite_all(patches, moved, false);
        if applied.is_ok() && self.find_cycle().is_some() {
            // A search after each patch costs the whole graph each time: only now is it worth that.
            (*self, *moved) = before.clone();
            applied = self.rewrite_all(patches, moved, true);
        }
        if applied.is_err() {
            (*self, *moved) = before;
        }
        applied
    }

    fn rewrite_all(
        &mut self,
        patches: &[Patch],
        moved: &mut Moved,
        find_cycles: bool,
    ) -> Result<Vec<bool>, (usize, PatchError)> {
        let mut applied = vec![];
        for (n, patch) in patches.iter().enumerate() {
            applied.push(match self.rewrite(patch.clone(), moved) {
                Ok(()) => true,
                Err(PatchError::Stale) => false,
                Err(error) => return Err((n, error)),
            });
            if find_cycles && self.find_cycle().is_some() {
                return Err((n, PatchError::Cycle));
            }
        }
        Ok(applied)
    }

    fn rewrite(&mut self, patch: Patch, moved: &mut Moved) -> Result<(), PatchError> {
        let patch = follow(patch, moved);
        self.check(&patch)?;
        self.constants.extend(patch.constants);
        let mut new = Vec::with_capacity(patch.nodes.len());
        for (op, ty, operands) in patch.nodes {
            let operands: Vec<ValueId> = operands.into_iter().map(|r| resolve(r, &new)).collect();
            new.push(self.push(op, ty, &operands));
        }
        let mut replaced = vec![];
        for (old, by) in patch.replacements {
            let by = resolve(by, &new);
            // Earlier patches may have made one of the two the other.
            if old != by {
                self.redirect_except(old, by, &new);
                moved.insert(old, by);
                replaced.push(old);
            }
        }
        let caches: Vec<Arc<str>> = new.iter().filter_map(|v| self.appended_cache(*v).cloned()).collect();
        for value in replaced {
            self.remove_unused(value, &caches);
        }
        for value in new.into_iter().chain(patch.removals) {
            self.remove_unused(value, &[]);
        }
        Ok(())
    }

    fn check(&self, patch: &Patch) -> Result<(), PatchError> {
        for (op, ty, operands) in &patch.nodes {
            let types: Vec<&Type> = operands
                .iter()
                .map(|r| patch.ty(self, *r))
                .collect::<Option<_>>()
                .ok_or(PatchError::Stale)?;
            if !op.is_source() && infer(op, &types)? != *ty {
                return Err(PatchError::TypeChange {
                    old: ty.to_string(),
                    new: infer(op, &types)?.to_string(),
                });
            }
        }
        if let Some(name) = patch.constants.keys().find(|name| self.constants.contains_key(*name)) {
            return Err(PatchError::DuplicateConstant(name.to_string()));
        }
        let mut replaced = std::collections::BTreeSet::new();
        for (old, by) in &patch.replacements {
            let (old_ty, new_ty) = (patch.ty(self, (*old).into()), patch.ty(self, *by));
            let (old_ty, new_ty) = old_ty.zip(new_ty).ok_or(PatchError::Stale)?;
            if old_ty != new_ty {
                return Err(PatchError::TypeChange { old: old_ty.to_string(), new: new_ty.to_string() });
            }
            if !replaced.insert(*old) {
                return Err(PatchError::ReplacedTwice);
            }
        }
        Ok(())
    }

    /// Redirects the users of `old` to `by`, but for the patch's own nodes, which wrap the old value.
    fn redirect_except(&mut self, old: ValueId, by: ValueId, new: &[ValueId]) {
        let wraps: Vec<ValueId> = self.users(old).into_iter().filter(|user| new.contains(user)).collect();
        self.redirect_filtered(old, by, &wraps);
    }
}

fn resolve(value: Ref, new: &[ValueId]) -> ValueId {
    match value {
        Ref::Old(id) => id,
        Ref::New(n) => new[n],
    }
}

/// The patch with every old value that was replaced since it was made followed to its replacement.
fn follow(mut patch: Patch, moved: &Moved) -> Patch {
    let latest = |mut id: ValueId| {
        while let Some(next) = moved.get(&id) {
            id = *next;
        }
        id
    };
    let update = |r: &mut Ref| {
        if let Ref::Old(id) = r {
            *id = latest(*id);
        }
    };
    patch.nodes.iter_mut().flat_map(|(_, _, operands)| operands).for_each(update);
    for (old, by) in &mut patch.replacements {
        *old = latest(*old);
        update(by);
    }
    patch
}
