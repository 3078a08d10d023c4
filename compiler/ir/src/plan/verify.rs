//! The plan verifier. A plan may come from an artifact that someone else made: what is checked here is what keeps
//! running it inside its buffers. A plan is valid when all of this holds:
//!
//! 1. Every launch names buffers that exist, and its output is not among its inputs.
//! 2. Every buffer's type is well formed: rows of fixed length, sizes that fit, symbols among `T`, `P`, `L` and `P+T`;
//!    plain tensors are stored plain, and codes all in the order of one target: weights of tensor-core products in
//!    records where others are plain.
//! 3. The result of every launch has the type that inference gives from its operands; a cache is written by
//!    what appends only, and has `P+T` rows.
//! 4. Weights and inputs are never written; scratch and outputs are written before they are read, outputs once.
//! 5. Scratch has `T` or `L` rows, starts at a multiple of 64, ends within the arena, and overlaps no scratch whose
//!    value is still needed.
//! 6. Names are unique in their kind; symbols are identifiers, and launches that share one share its signature.
//! 7. Weights have fixed shapes; inputs and outputs have `T` or `L` rows, or are vectors of them.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{ARENA_ALIGN, Buffer, Launch, Place, Plan, Storage, arena_bytes, parts, text::launch_text};
use crate::infer::infer;
use crate::{Dim, Shape, Type};

/// Everything that is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the plan is invalid:\n{}", .0.join("\n"))]
pub struct PlanError(pub Vec<String>);

/// Checks every invariant in this module's header and reports all violations.
pub fn verify_plan(plan: &Plan) -> Result<(), PlanError> {
    let mut found = vec![];
    let mut names = BTreeSet::new();
    for (n, buffer) in plan.buffers.iter().enumerate() {
        check_buffer(plan, buffer, &mut names).unwrap_or_else(|reason| found.push(format!("%{n}: {reason}")));
    }
    let in_range = |l: &Launch| l.inputs.iter().chain([&l.output]).all(|b| *b < plan.buffers.len());
    for launch in &plan.launches {
        let result = if in_range(launch) {
            check_launch(plan, launch)
        } else {
            Err("names a buffer that does not exist".into())
        };
        result.unwrap_or_else(|reason| found.push(format!("{}: {reason}", launch_text(launch))));
    }
    if found.is_empty() {
        check_symbols(plan).unwrap_or_else(|reason| found.push(reason));
        check_flow(plan).unwrap_or_else(|reason| found.push(reason));
    }
    if found.is_empty() { Ok(()) } else { Err(PlanError(found)) }
}

fn require(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

fn check_buffer(plan: &Plan, buffer: &Buffer, names: &mut BTreeSet<(u8, String)>) -> Result<(), String> {
    let Buffer { ty, place, storage } = buffer;
    require(matches!(ty.shape.0.len(), 1 | 2), || format!("{ty} is neither a vector nor a matrix"))?;
    require(ty.scheme.fits(ty.dtype), || format!("scheme of {ty} does not fit its dtype"))?;
    let expected = Storage::of(ty, place, plan.codes());
    require(*storage == expected, || format!("{ty} is stored in the wrong order"))?;
    let rows = if ty.shape.0.len() == 1 { &ty.shape.0[0] } else { &ty.shape.rows() };
    let symbol = match rows {
        Dim::Sym(s) => Some(&**s),
        Dim::Fixed(_) => None,
    };
    let per_step = matches!(symbol, Some("T" | "L"));
    let name = match place {
        Place::Input(name) => (0, name, per_step),
        Place::Output(name) => (1, name, per_step && ty.shape.0.len() == 2),
        Place::Weight(name) => (2, name, ty.shape.elements().is_some()),
        Place::Cache(name) => (3, name, symbol == Some("P+T") && ty.shape.0.len() == 2),
        Place::Arena { offset } => {
            require(per_step && ty.shape.0.len() == 2, || {
                format!("scratch of type {ty} does not have T or L rows")
            })?;
            let end = arena_bytes(ty, *storage).and_then(|size| size.checked_add(*offset));
            let fits = end.is_some_and(|end| end <= plan.arena_bytes_per_token) && offset % ARENA_ALIGN == 0;
            return require(fits, || format!("scratch {ty} at {offset} is not aligned inside the arena"));
        }
    };
    require(name.2, || format!("{ty} does not have the rows of its place"))?;
    require(names.insert((name.0, name.1.to_string())), || format!("a second buffer named `{}`", name.1))?;
    if ty.shape.0.len() == 1 && symbol.is_some() {
        return require(ty.scheme.is_plain(), || format!("{ty} is a vector of codes"));
    }
    let rows = ty.shape.rows().fixed().unwrap_or(1);
    let total = parts(ty, *storage)
        .and_then(|list| list.iter().try_fold(0usize, |sum, part| sum.checked_add(part.stored(rows)?.1)));
    require(total.is_some_and(|t| t < isize::MAX as usize), || format!("{ty} is too large"))
}

fn check_launch(plan: &Plan, launch: &Launch) -> Result<(), String> {
    let ty = |b: &usize| &plan.buffers[*b].ty;
    let output = &plan.buffers[launch.output];
    require(!launch.inputs.contains(&launch.output), || "writes what it reads".into())?;
    let appends = launch.kernel.appends();
    require(appends == matches!(output.place, Place::Cache(_)), || {
        "a cache is written by what appends to it, and only that".into()
    })?;
    let mut types: Vec<&Type> = launch.inputs.iter().map(ty).collect();
    let before = Type { shape: Shape::matrix(Dim::sym("P"), output.ty.shape.cols()), ..output.ty.clone() };
    if appends {
        types.insert(0, &before);
    }
    let inferred = infer(&launch.kernel.to_op(), &types).map_err(|e| e.reason)?;
    require(inferred == output.ty, || format!("computes {inferred}, but its output is {}", output.ty))?;
    let writable = !matches!(output.place, Place::Weight(_) | Place::Input(_));
    require(writable, || "writes a weight or an input".into())
}

fn check_symbols(plan: &Plan) -> Result<(), String> {
    let mut signatures = BTreeMap::new();
    for launch in &plan.launches {
        let symbol = &*launch.symbol;
        let starts_well = symbol.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let identifier =
            starts_well && symbol.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        require(identifier, || format!("symbol `{symbol}` is not an identifier"))?;
        let signature = plan.signature(launch);
        let known = signatures.entry(symbol).or_insert_with(|| signature.clone());
        require(*known == signature, || format!("symbol `{symbol}` stands for two kernels"))?;
    }
    Ok(())
}

/// Follows the launches: what is read was written, and nothing that is still needed is overwritten.
fn check_flow(plan: &Plan) -> Result<(), String> {
    let mut last_read = vec![0; plan.buffers.len()];
    for (at, launch) in plan.launches.iter().enumerate() {
        launch.inputs.iter().for_each(|b| last_read[*b] = at);
    }
    let given = |b: &Buffer| matches!(b.place, Place::Input(_) | Place::Weight(_));
    let mut written: Vec<bool> = plan.buffers.iter().map(given).collect();
    let mut live: Vec<(usize, usize, usize)> = vec![];
    for (at, launch) in plan.launches.iter().enumerate() {
        let unwritten = launch.inputs.iter().find(|b| !written[**b]);
        require(unwritten.is_none(), || format!("{}: reads what nothing has written", launch_text(launch)))?;
        let output = &plan.buffers[launch.output];
        require(!written[launch.output], || format!("{}: writes a buffer again", launch_text(launch)))?;
        written[launch.output] = true;
        let Place::Arena { offset } = output.place else { continue };
        let size = arena_bytes(&output.ty, output.storage).unwrap_or(0);
        live.retain(|(_, _, buffer)| last_read[*buffer] >= at);
        let overlaps =
            live.iter().any(|(start, length, _)| *start < offset + size && offset < start + length);
        require(!overlaps, || format!("{}: overwrites scratch that is still needed", launch_text(launch)))?;
        live.push((offset, size, launch.output));
    }
    let missing = plan
        .buffers
        .iter()
        .zip(&written)
        .find(|(b, written)| matches!(b.place, Place::Output(_)) && !**written);
    require(missing.is_none(), || "an output is never written".into())
}
