//! `cp.async` in all its forms.

use super::Call;
use super::call::{U32, U64};
use crate::op::{Bulk, Mbarrier, Space};
use crate::program::{Op, Reg};
use crate::ptx::ParseError;

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    if call.m.base != "cp" {
        return Ok(false);
    }
    if !call.m.take("async") {
        return Err(call.unsupported());
    }
    if call.m.take("bulk") {
        bulk(call)?;
    } else {
        copy(call)?;
    }
    Ok(true)
}

/// `cp.async` of 4, 8 or 16 bytes per thread, its groups and its arrival.
fn copy(call: &mut Call) -> Result<(), ParseError> {
    if call.m.take("commit_group") {
        call.emit(Op::CopyCommit);
        return Ok(());
    }
    if call.m.take("wait_all") {
        call.emit(Op::CopyCommit);
        call.emit(Op::CopyWait { pending: 0 });
        return Ok(());
    }
    if call.m.take("wait_group") {
        let pending = call.immediate(0)? as u32;
        call.emit(Op::CopyWait { pending });
        return Ok(());
    }
    if call.m.take("mbarrier") {
        return arrive_on_copies(call);
    }
    call.take_orders();
    let hinted = call.m.take("L2::cache_hint");
    let to = call.take_space().filter(|s| matches!(s, Space::Shared)).ok_or_else(|| call.unsupported())?;
    let from = call.take_space().filter(|s| *s == Space::Global).ok_or_else(|| call.unsupported())?;
    let (to, from) = (call.address(0, to)?, call.address(1, from)?);
    let bytes = call.immediate(2)? as u32;
    if !matches!(bytes, 4 | 8 | 16) {
        return Err(call.error(format!("{bytes} bytes: cp.async copies 4, 8 or 16")));
    }
    let extra = call.count() - usize::from(hinted);
    let from_bytes = if extra > 3 { Some(call.src(3, U32)?) } else { None };
    if hinted {
        call.src(call.count() - 1, U64)?;
    }
    call.emit(Op::Copy { to, from, bytes, from_bytes });
    Ok(())
}

fn arrive_on_copies(call: &mut Call) -> Result<(), ParseError> {
    if !call.m.take("arrive") {
        return Err(call.unsupported());
    }
    let increments = !call.m.take("noinc");
    let space = call.take_space().unwrap_or(Space::Generic);
    call.ty()?;
    let at = call.address(0, space)?;
    call.emit(Op::Mbarrier { at, op: Mbarrier::ArriveOnCopies { increments } });
    Ok(())
}

fn bulk(call: &mut Call) -> Result<(), ParseError> {
    if call.m.take("commit_group") {
        call.emit(Op::BulkCommit);
        return Ok(());
    }
    if call.m.take("wait_group") {
        // A wait for everything is also one for what was read.
        call.m.take("read");
        let pending = call.immediate(0)? as u32;
        call.emit(Op::BulkWait { pending });
        return Ok(());
    }
    if call.m.take("prefetch") {
        return prefetch(call);
    }
    let rank = rank(call);
    let (to, from) = directions(call)?;
    let hinted = call.m.take("L2::cache_hint");
    let multicast = call.m.take("multicast::cluster");
    call.m.take("tile");
    let loads = call.m.take("mbarrier::complete_tx::bytes");
    if loads == call.m.take("bulk_group") {
        return Err(call.error("a bulk copy completes on a barrier or in a bulk group"));
    }
    let form = match (rank, to, from, loads) {
        (None, Space::Cluster | Space::Shared, Space::Global, true) => load(call, to, multicast)?,
        (None, Space::Global, Space::Shared, false) => store(call)?,
        (None, Space::Cluster, Space::Shared, true) => send(call)?,
        (Some(rank), Space::Cluster | Space::Shared, Space::Global, true) => {
            tensor_load(call, rank, to, multicast)?
        }
        (Some(rank), Space::Global, Space::Shared, false) => tensor_store(call, rank)?,
        _ => return Err(call.unsupported()),
    };
    if hinted {
        call.src(call.count() - 1, U64)?;
    }
    call.emit(Op::Bulk(Box::new(form)));
    Ok(())
}

/// Dimensions of a tensor copy.
fn rank(call: &mut Call) -> Option<usize> {
    let dims = [("1d", 1), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)];
    if call.m.take("tensor") { call.m.take_of(&dims) } else { None }
}

/// A prefetch into L2 has no effect on results.
fn prefetch(call: &mut Call) -> Result<(), ParseError> {
    let rank = rank(call);
    for part in ["L2", "global", "tile", "L2::cache_hint"] {
        call.m.take(part);
    }
    if let Some(rank) = rank {
        tensor(call, 0, rank)?;
    } else {
        plain(call, 0)?;
    }
    for i in 1..call.count() {
        call.src(i, U64)?;
    }
    call.emit(Op::Nop);
    Ok(())
}

/// Where the copy goes and comes from: the first two state spaces, in this order.
fn directions(call: &mut Call) -> Result<(Space, Space), ParseError> {
    let mut space = || match call.m.next()? {
        "shared::cluster" => Some(Space::Cluster),
        "shared::cta" => Some(Space::Shared),
        "global" => Some(Space::Global),
        _ => None,
    };
    let found = space().zip(space());
    found.ok_or_else(|| call.unsupported())
}

fn load(call: &mut Call, to: Space, multicast: bool) -> Result<Bulk, ParseError> {
    let to = call.address(0, to)?;
    let from = plain(call, 1)?;
    let bytes = call.src(2, U32)?;
    let barrier = call.address(3, to.space)?;
    let mask = if multicast { Some(call.src(4, U32)?) } else { None };
    Ok(Bulk::Load { to, from, bytes, barrier, mask })
}

fn store(call: &mut Call) -> Result<Bulk, ParseError> {
    let to = plain(call, 0)?;
    let from = call.address(1, Space::Shared)?;
    let bytes = call.src(2, U32)?;
    Ok(Bulk::Store { to, from, bytes })
}

fn send(call: &mut Call) -> Result<Bulk, ParseError> {
    let (to, from) = (call.address(0, Space::Cluster)?, call.address(1, Space::Shared)?);
    let bytes = call.src(2, U32)?;
    let barrier = call.address(3, Space::Cluster)?;
    Ok(Bulk::Send { to, from, bytes, barrier })
}

fn tensor_load(call: &mut Call, rank: usize, to: Space, multicast: bool) -> Result<Bulk, ParseError> {
    let to = call.address(0, to)?;
    let (map, at) = tensor(call, 1, rank)?;
    let barrier = call.address(2, to.space)?;
    let mask = if multicast { Some(call.src(3, U32)?) } else { None };
    Ok(Bulk::TensorLoad { to, map, at, barrier, mask })
}

fn tensor_store(call: &mut Call, rank: usize) -> Result<Bulk, ParseError> {
    let (map, at) = tensor(call, 0, rank)?;
    let from = call.address(1, Space::Shared)?;
    Ok(Bulk::TensorStore { map, at, from })
}

fn tensor(call: &mut Call, index: usize, rank: usize) -> Result<(Reg, Box<[Reg]>), ParseError> {
    let (map, at) = call.tensor_address(index, Space::Generic)?;
    if at.len() != rank || map.offset != 0 {
        return Err(call.error(format!("{} coordinates for {rank} dimensions", at.len())));
    }
    Ok((map.row, at.into()))
}

/// A global address that is a register without an offset.
fn plain(call: &mut Call, index: usize) -> Result<Reg, ParseError> {
    let at = call.address(index, Space::Global)?;
    if at.offset == 0 { Ok(at.row) } else { Err(call.unsupported()) }
}
