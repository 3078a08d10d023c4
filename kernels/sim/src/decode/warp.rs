//! Instructions that exchange values within a warp.

use super::Call;
use super::call::{PRED, U32};
use crate::op::{Shuffle, Vote};
use crate::program::Op;
use crate::ptx::ParseError;

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "shfl" => shuffle(call)?,
        "vote" => vote(call)?,
        "match" => matching(call)?,
        "redux" => redux(call)?,
        "activemask" => {
            call.ty()?;
            let d = call.dst(0)?;
            call.emit(Op::ActiveMask { d });
        }
        "elect" => {
            need_sync(call)?;
            let (d, p) = call.dst_pair(0)?;
            let mask = call.src(1, U32)?;
            call.emit(Op::Elect { d, p, mask });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The forms without `.sync` are gone from `sm_70` on.
fn need_sync(call: &mut Call) -> Result<(), ParseError> {
    if call.m.take("sync") { Ok(()) } else { Err(call.unsupported()) }
}

fn shuffle(call: &mut Call) -> Result<(), ParseError> {
    need_sync(call)?;
    let modes =
        [("up", Shuffle::Up), ("down", Shuffle::Down), ("bfly", Shuffle::Butterfly), ("idx", Shuffle::Index)];
    let mode = call.m.take_of(&modes).ok_or_else(|| call.unsupported())?;
    let ty = call.ty()?;
    let (d, p) = call.dst_pair(0)?;
    let s = [call.src(1, ty)?, call.src(2, U32)?, call.src(3, U32)?];
    let mask = call.src(4, U32)?;
    call.emit(Op::Shuffle { mode, d, p, s, mask });
    Ok(())
}

fn vote(call: &mut Call) -> Result<(), ParseError> {
    need_sync(call)?;
    let modes = [("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uniform), ("ballot", Vote::Ballot)];
    let mode = call.m.take_of(&modes).ok_or_else(|| call.unsupported())?;
    call.ty()?;
    let d = call.dst(0)?;
    let (p, mask) = (call.src(1, PRED)?, call.src(2, U32)?);
    call.emit(Op::Vote { mode, d, p, mask });
    Ok(())
}

fn matching(call: &mut Call) -> Result<(), ParseError> {
    need_sync(call)?;
    let all = call.m.take("all");
    if !all && !call.m.take("any") {
        return Err(call.unsupported());
    }
    let ty = call.ty()?;
    let (d, p) = call.dst_pair(0)?;
    let (a, mask) = (call.src(1, ty)?, call.src(2, U32)?);
    call.emit(Op::Match { all: all.then_some(p), d, a, mask });
    Ok(())
}

type Fold = fn(u64, u64) -> u64;

fn redux(call: &mut Call) -> Result<(), ParseError> {
    need_sync(call)?;
    let folds: [(&str, [Fold; 2]); 6] = [
        ("add", [|a, b| (a + b) & 0xffff_ffff; 2]),
        ("min", [|a, b| a.min(b), |a, b| (a as i32).min(b as i32) as u32 as u64]),
        ("max", [|a, b| a.max(b), |a, b| (a as i32).max(b as i32) as u32 as u64]),
        ("and", [|a, b| a & b; 2]),
        ("or", [|a, b| a | b; 2]),
        ("xor", [|a, b| a ^ b; 2]),
    ];
    let pair = call.m.take_of(&folds).ok_or_else(|| call.unsupported())?;
    let ty = call.ty()?;
    if ty.bits != 32 || !ty.integer() {
        return Err(call.unsupported());
    }
    let d = call.dst(0)?;
    let (a, mask) = (call.src(1, ty)?, call.src(2, U32)?);
    call.emit(Op::Redux { f: pair[usize::from(ty.signed())], d, a, mask });
    Ok(())
}
