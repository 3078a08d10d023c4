//! Memory barrier objects, and addresses in the shared memory of other CTAs.

use super::Call;
use super::call::{U32, U64};
use crate::op::{Mbarrier, Space};
use crate::program::{Constant, Op};
use crate::ptx::{Operand, ParseError};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "mbarrier" => mbarrier(call)?,
        "mapa" => map_rank(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn mbarrier(call: &mut Call) -> Result<(), ParseError> {
    call.take_orders();
    let name = call.m.next().ok_or_else(|| call.unsupported())?;
    let expects = name != "expect_tx" && call.m.take("expect_tx");
    let parity = call.m.take("parity");
    call.m.take("noComplete");
    let space = call.take_space().unwrap_or(Space::Generic);
    call.ty()?;
    let (index, op) = match name {
        "init" => (0, Mbarrier::Init { count: call.src(1, U32)? }),
        "inval" => (0, Mbarrier::Invalidate),
        "expect_tx" => (0, Mbarrier::ExpectTx { bytes: call.src(1, U32)? }),
        "complete_tx" => (0, Mbarrier::CompleteTx { bytes: call.src(1, U32)? }),
        "arrive" | "arrive_drop" => return arrive(call, name == "arrive_drop", expects, space),
        "test_wait" | "try_wait" => {
            let (done, phase) = (call.dst(0)?, call.src(2, U64)?);
            if name == "try_wait" && call.count() == 4 {
                call.src(3, U32)?;
            }
            (1, Mbarrier::Wait { done, phase, parity })
        }
        _ => return Err(call.unsupported()),
    };
    let at = call.address(index, space)?;
    call.emit(Op::Mbarrier { at, op });
    Ok(())
}

/// The state is left out where the barrier is in another CTA.
fn arrive(call: &mut Call, drop: bool, expects: bool, space: Space) -> Result<(), ParseError> {
    let first = usize::from(!matches!(call.operand(0)?, Operand::Address { .. }));
    let state = if first == 1 { Some(call.dst(0)?) } else { None };
    let at = call.address(first, space)?;
    let one = call.builder.constant(Constant::Bits(1));
    let more = if call.count() > first + 1 { Some(call.src(first + 1, U32)?) } else { None };
    if expects && more.is_none() {
        return Err(call.error("the number of bytes to expect is missing"));
    }
    let (count, expect) = if expects { (one, more) } else { (more.unwrap_or(one), None) };
    call.emit(Op::Mbarrier { at, op: Mbarrier::Arrive { state, count, expect, drop } });
    Ok(())
}

fn map_rank(call: &mut Call) -> Result<(), ParseError> {
    let generic = call.take_space().is_none();
    call.ty()?;
    let d = call.dst(0)?;
    let (a, rank) = (call.src(1, U64)?, call.src(2, U32)?);
    call.emit(Op::MapRank { d, a, rank, generic });
    Ok(())
}
