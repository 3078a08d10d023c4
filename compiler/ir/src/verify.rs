//! The verifier: always on between passes. A graph is valid when all of this holds:
//!
//! 1. Every operation has as many operands as its table row says, in slots 0, 1, 2, … without gaps.
//! 2. No value depends on itself.
//! 3. The type of every computed value is the one that inference gives from its operands.
//! 4. Every declared type is well formed: one or two dimensions, none of them zero, a scheme that fits the dtype.
//! 5. Names of inputs, constants and caches are not empty, and no two nodes of a kind share one (a constant may
//!    stand twice if the types agree).
//! 6. Every constant has data or is elided; data is as long as the type says (numbers; or packed codes and then scales,
//!    level by level), and constants have fixed shapes.
//! 7. Every cache has exactly one user, which appends to it as its first operand, and no other user.
//! 8. There is at least one output, and every symbol of an output's shape is bound by an input or a cache.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::infer::infer;
use crate::plan::{Storage, parts};
use crate::text::print_lines;
use crate::{ConstData, Dim, Graph, Op, Type, ValueId};

/// Everything that is wrong with a graph.
#[derive(Debug, Error)]
#[error("the graph is invalid:\n{}", .0.iter().map(VerifyError::to_string).collect::<Vec<_>>().join("\n"))]
pub struct VerifyErrors(pub Vec<VerifyError>);

/// One violated invariant.
#[derive(Debug, Error)]
#[error("{line}\n    ^ {reason}")]
pub struct VerifyError {
    /// The offending line as printed.
    pub line: String,
    /// Index of the line among the printed nodes; `None` for the graph as a whole.
    pub node: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

/// Checks every invariant in this module's header and reports all violations.
pub fn verify(graph: &Graph) -> Result<(), VerifyErrors> {
    let mut found: Vec<(Option<ValueId>, String)> = Vec::new();
    if let Some(value) = graph.find_cycle() {
        found.push((Some(value), "depends on itself".into()));
    }
    let schedule = graph.schedule();
    let mut names = BTreeMap::new();
    for value in &schedule {
        let mut report = |reason: String| found.push((Some(*value), reason));
        check_operands(graph, *value).unwrap_or_else(&mut report);
        check_declared(graph, *value).unwrap_or_else(&mut report);
        check_name(graph, *value, &mut names).unwrap_or_else(&mut report);
        check_cache(graph, *value).unwrap_or_else(&mut report);
    }
    check_outputs(graph, &schedule)
        .unwrap_or_else(|reason| found.push((graph.outputs.first().copied(), reason)));
    if found.is_empty() {
        return Ok(());
    }
    let lines: BTreeMap<_, _> =
        schedule.iter().copied().zip(print_lines(graph).into_iter().enumerate()).collect();
    let error = |(value, reason): (Option<ValueId>, String)| {
        let line = value.and_then(|v| lines.get(&v));
        VerifyError {
            line: line.map_or("return".into(), |(_, l)| l.clone()),
            node: line.map(|(n, _)| *n),
            reason,
        }
    };
    Err(VerifyErrors(found.into_iter().map(error).collect()))
}

fn check_operands(graph: &Graph, value: ValueId) -> Result<(), String> {
    let (op, slots) = (graph.op(value), graph.slots(value));
    op.check_arity(slots.len())?;
    if slots.iter().enumerate().any(|(i, (slot, _))| i != *slot) {
        return Err("an operand slot is empty".into());
    }
    if op.is_source() {
        return Ok(());
    }
    let types: Vec<&Type> = slots.iter().map(|(_, v)| graph.ty(*v)).collect();
    let inferred = infer(op, &types).map_err(|e| e.reason)?;
    let declared = graph.ty(value);
    if inferred == *declared { Ok(()) } else { Err(format!("has type {inferred}, not {declared}")) }
}

fn check_declared(graph: &Graph, value: ValueId) -> Result<(), String> {
    let (op, ty) = (graph.op(value), graph.ty(value));
    if !op.is_source() {
        return Ok(());
    }
    if !matches!(ty.shape.0.len(), 1 | 2) || ty.shape.0.contains(&Dim::Fixed(0)) {
        return Err(format!("shape {} is not one or two positive dimensions", ty.shape));
    }
    if !ty.scheme.fits(ty.dtype) {
        return Err(format!("scheme `{}` does not fit {}", ty.scheme, ty.dtype));
    }
    if let Op::Const { name } = op { check_data(ty, graph.constants.get(name)) } else { Ok(()) }
}

fn check_data(ty: &Type, data: Option<&ConstData>) -> Result<(), String> {
    if ty.shape.0.iter().any(|dim| dim.fixed().is_none()) {
        return Err("a constant needs a fixed shape".into());
    }
    let expected = constant_bytes(ty).ok_or_else(|| format!("{ty} is too large"))?;
    match data {
        None => Err("has no data".into()),
        Some(ConstData::Elided { .. }) => Ok(()),
        Some(data) => {
            let found = data.size().unwrap_or(0);
            if expected == found {
                Ok(())
            } else {
                Err(format!("data has {found} bytes, {ty} takes {expected}"))
            }
        }
    }
}

/// Bytes of a constant: of its numbers, or of its codes and then its scales, level by level.
fn constant_bytes(ty: &Type) -> Option<usize> {
    if ty.scheme.is_plain() {
        return Some(ty.shape.elements()?.checked_mul(ty.dtype.bits())?.div_ceil(8));
    }
    let rows = ty.shape.rows().fixed()?;
    parts(ty, Storage::Plain)?
        .iter()
        .try_fold(0usize, |sum, part| sum.checked_add(part.row_bytes().checked_mul(rows)?))
}

fn check_name(
    graph: &Graph,
    value: ValueId,
    names: &mut BTreeMap<(String, String), Type>,
) -> Result<(), String> {
    let (op, ty) = (graph.op(value), graph.ty(value));
    let Some(name) = op.name() else { return Ok(()) };
    if name.is_empty() {
        return Err("has an empty name".into());
    }
    let previous = names.insert((op.mnemonic().into(), name.to_string()), ty.clone());
    match previous {
        Some(previous) if !matches!(op, Op::Const { .. }) || previous != *ty => {
            Err(format!("a second {} named `{name}`", op.mnemonic()))
        }
        _ => Ok(()),
    }
}

fn check_cache(graph: &Graph, value: ValueId) -> Result<(), String> {
    if !matches!(graph.op(value), Op::Cache { .. }) {
        return Ok(());
    }
    let users = graph.users(value);
    let appends = users.len() == 1
        && graph.op(users[0]).appends()
        && graph.operands(users[0]).iter().position(|v| *v == value) == Some(0);
    if appends { Ok(()) } else { Err("a cache has one user, which appends to it".into()) }
}

fn check_outputs(graph: &Graph, schedule: &[ValueId]) -> Result<(), String> {
    if graph.outputs.is_empty() {
        return Err("the graph has no output".into());
    }
    let sources = schedule.iter().filter(|v| graph.op(**v).is_source());
    let bound: BTreeSet<&Dim> = sources.flat_map(|v| &graph.ty(*v).shape.0).collect();
    for dim in graph.outputs.iter().flat_map(|v| &graph.ty(*v).shape.0) {
        let Dim::Sym(name) = dim else { continue };
        if let Some(free) =
            name.split('+').find(|part| !bound.contains(&Dim::sym(part)) && part.parse::<usize>().is_err())
        {
            return Err(format!("no input or cache binds the symbol {free}"));
        }
    }
    Ok(())
}
