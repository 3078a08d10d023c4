//! Branches, barriers and fences.

use super::Call;
use super::call::{PRED, U32};
use crate::op::{Reduction, Space};
use crate::program::Op;
use crate::ptx::{Operand, ParseError};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "bra" => branch(call)?,
        "brx" => branch_table(call)?,
        "ret" | "exit" => {
            call.m.take("uni");
            call.emit(Op::Exit);
        }
        "trap" | "brkpt" => call.emit(Op::Trap),
        "bar" | "barrier" => barrier(call)?,
        "membar" | "fence" => fence(call)?,
        "griddepcontrol" => {
            // When later launches begin is not seen here: those are what `wait` has to be right for.
            let op = match (call.m.take("wait"), call.m.take("launch_dependents")) {
                (true, false) => Op::GridWait,
                (false, true) => Op::Nop,
                _ => return Err(call.unsupported()),
            };
            call.emit(op);
        }
        "setmaxnreg" => register_limit(call)?,
        "nanosleep" => {
            call.ty()?;
            call.src(0, U32)?;
            call.emit(Op::Yield);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn branch(call: &mut Call) -> Result<(), ParseError> {
    call.m.take("uni");
    let Operand::Name(label, 0) = *call.operand(0)? else {
        return Err(call.error("a label is expected here"));
    };
    call.builder.jump(label, call.statement.line);
    call.emit(Op::Branch { target: 0, rejoin: u32::MAX });
    Ok(())
}

fn branch_table(call: &mut Call) -> Result<(), ParseError> {
    call.m.take("uni");
    if !call.m.take("idx") {
        return Err(call.unsupported());
    }
    let index = call.src(0, U32)?;
    let Operand::Name(table, 0) = *call.operand(1)? else {
        return Err(call.error("a table of labels is expected here"));
    };
    call.builder.jump(table, call.statement.line);
    call.emit(Op::BranchTable { index, targets: [].into(), rejoin: u32::MAX });
    Ok(())
}

fn barrier(call: &mut Call) -> Result<(), ParseError> {
    call.m.take("cta");
    call.m.take("aligned");
    if call.m.take("warp") {
        call.m.take("sync");
        let mask = call.src(0, U32)?;
        call.emit(Op::WarpSync { mask });
        return Ok(());
    }
    if call.m.take("cluster") {
        return cluster_barrier(call);
    }
    if call.m.take("red") {
        return reducing_barrier(call);
    }
    let waits = match (call.m.take("sync"), call.m.take("arrive")) {
        (true, false) => true,
        (false, true) => false,
        _ => return Err(call.unsupported()),
    };
    let id = call.src(0, U32)?;
    let count = if call.count() > 1 { Some(call.src(1, U32)?) } else { None };
    if !waits && count.is_none() {
        return Err(call.error("an arrival needs the number of threads"));
    }
    call.emit(Op::Barrier { id, count, waits, reduce: None });
    Ok(())
}

fn cluster_barrier(call: &mut Call) -> Result<(), ParseError> {
    let op = match (call.m.take("arrive"), call.m.take("wait")) {
        (true, false) => Op::ClusterArrive,
        (false, true) => Op::ClusterWait,
        _ => return Err(call.unsupported()),
    };
    for order in ["release", "relaxed", "acquire"] {
        call.m.take(order);
    }
    call.emit(op);
    Ok(())
}

fn reducing_barrier(call: &mut Call) -> Result<(), ParseError> {
    let reductions = [("and", Reduction::And), ("or", Reduction::Or), ("popc", Reduction::Count)];
    let reduction = call.m.take_of(&reductions).ok_or_else(|| call.unsupported())?;
    call.ty()?;
    let d = call.dst(0)?;
    let id = call.src(1, U32)?;
    let last = call.count().saturating_sub(1);
    let count = if last == 3 { Some(call.src(2, U32)?) } else { None };
    let p = call.src(last, PRED)?;
    call.emit(Op::Barrier { id, count, waits: true, reduce: Some((reduction, d, p)) });
    Ok(())
}

/// Every access is executed in order, so only fences between proxies mean something.
fn fence(call: &mut Call) -> Result<(), ParseError> {
    let proxy = call.m.take("proxy");
    let asynchronous = call.m.take("async");
    let initialisation = call.m.take("mbarrier_init");
    let kinds = ["tensormap::generic", "alias", "sc", "gl", "release", "acquire", "acq_rel"];
    for kind in kinds.into_iter().chain(["cta", "cluster", "gpu", "sys", "sync", "aligned"]) {
        call.m.take(kind);
    }
    // A fence for global memory alone says nothing about shared memory, whose proxies are the ones tracked.
    let shared = call.take_space() != Some(Space::Global);
    if call.count() > 0 {
        call.address(0, Space::Generic)?;
    }
    for i in 1..call.count() {
        call.immediate(i)?;
    }
    call.emit(match (proxy && asynchronous && shared, initialisation) {
        (true, _) => Op::ProxyFence,
        (_, true) => Op::BarrierFence,
        _ => Op::Nop,
    });
    Ok(())
}

fn register_limit(call: &mut Call) -> Result<(), ParseError> {
    if !call.m.take("inc") && !call.m.take("dec") {
        return Err(call.unsupported());
    }
    call.m.take("sync");
    call.m.take("aligned");
    call.ty()?;
    let count = call.immediate(0)?;
    if !(24..=256).contains(&count) || count % 8 != 0 {
        return Err(call.error(format!("{count} registers: a multiple of 8 from 24 to 256 is needed")));
    }
    call.emit(Op::Nop);
    Ok(())
}
