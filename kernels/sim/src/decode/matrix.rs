//! Tensor-core instructions and matrix loads.

use super::Call;
use super::call::{PRED, U32, U64};
use crate::op::{Element, MatrixA, Space, Wgmma};
use crate::program::{Op, Reg};
use crate::ptx::{Operand, ParseError};
use crate::types::{Kind, Type};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "ldmatrix" | "stmatrix" => move_matrix(call)?,
        "mma" => mma(call)?,
        "wgmma" => wgmma(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn synchronous(call: &mut Call) -> Result<(), ParseError> {
    if call.m.take("sync") && call.m.take("aligned") { Ok(()) } else { Err(call.unsupported()) }
}

fn move_matrix(call: &mut Call) -> Result<(), ParseError> {
    synchronous(call)?;
    let loads = call.m.base == "ldmatrix";
    let count = call.m.take_of(&[("x1", 1), ("x2", 2), ("x4", 4)]).ok_or_else(|| call.unsupported())?;
    let transpose = call.m.take("trans");
    let space = call.take_space().unwrap_or(Space::Generic);
    if !call.m.take("m8n8") || call.ty()?.bits != 16 {
        return Err(call.unsupported());
    }
    let at = call.address(usize::from(loads), space)?;
    let rows = if loads { call.dst_vector(0)? } else { call.src_vector(1, U32)? };
    if rows.len() != count {
        return Err(call.error(format!("{} registers for {count} matrices", rows.len())));
    }
    let rows = rows.into();
    call.emit(if loads {
        Op::LoadMatrix { at, d: rows, transpose }
    } else {
        Op::StoreMatrix { at, s: rows, transpose }
    });
    Ok(())
}

/// Takes `m.n.k.` and says n and k.
fn shape(call: &mut Call, m: usize) -> Result<(usize, usize), ParseError> {
    let text = call.m.left().iter().find(|t| t.starts_with('m') && t.contains('k')).copied();
    let text = text.ok_or_else(|| call.unsupported())?;
    call.m.take(text);
    let mut numbers = text.split(['m', 'n', 'k']).skip(1).map(|n| n.parse::<usize>().ok());
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten()) {
        (Some(found), Some(n), Some(k)) if found == m => Ok((n, k)),
        _ => Err(call.error(format!("shape `{text}` is not supported"))),
    }
}

fn element(call: &mut Call) -> Result<Element, ParseError> {
    let names =
        [("f16", Element::F16), ("bf16", Element::Bf16), ("e4m3", Element::E4m3), ("e5m2", Element::E5m2)];
    let name = call.m.next();
    let found = names.iter().find(|(n, _)| Some(*n) == name).map(|(_, e)| *e);
    found.ok_or_else(|| call.error("this element type of a matrix is not supported"))
}

fn single(call: &mut Call) -> Result<(), ParseError> {
    if call.m.next() == Some("f32") { Ok(()) } else { Err(call.error("only f32 accumulators are supported")) }
}

fn mma(call: &mut Call) -> Result<(), ParseError> {
    synchronous(call)?;
    let (n, k) = shape(call, 16)?;
    if n != 8 || !call.m.take("row") || !call.m.take("col") {
        return Err(call.unsupported());
    }
    single(call)?;
    let element = [element(call)?, element(call)?];
    single(call)?;
    let registers = k * element[0].bytes() / 16;
    if !matches!(registers, 1 | 2)
        || k * element[0].bytes() % 16 != 0
        || element[0].bytes() != element[1].bytes()
    {
        return Err(call.unsupported());
    }
    let d = call.dst_vector(0)?;
    let (a, b) = (call.src_vector(1, U32)?, call.src_vector(2, U32)?);
    let c = call.src_vector(3, F32)?;
    let (d, c) = (four(call, &d)?, four(call, &c)?);
    if a.len() != 2 * registers || b.len() != registers {
        return Err(call.error("the number of registers does not fit the shape"));
    }
    call.emit(Op::Mma { element, k, d, a: a.into(), b: b.into(), c });
    Ok(())
}

const F32: Type = Type { kind: Kind::Float, bits: 32, packed: 1 };

fn four(call: &Call, rows: &[Reg]) -> Result<[Reg; 4], ParseError> {
    rows.try_into().map_err(|_| call.error(format!("{} registers where four are needed", rows.len())))
}

fn wgmma(call: &mut Call) -> Result<(), ParseError> {
    synchronous(call)?;
    call.builder.kernel.matrix_async = true;
    match call.m.next() {
        Some("fence") => call.emit(Op::WgmmaFence),
        Some("commit_group") => call.emit(Op::WgmmaCommit),
        Some("wait_group") => {
            let pending = call.immediate(0)? as u32;
            call.emit(Op::WgmmaWait { pending });
        }
        Some("mma_async") => multiply(call)?,
        _ => return Err(call.unsupported()),
    }
    Ok(())
}

fn multiply(call: &mut Call) -> Result<(), ParseError> {
    let (n, k) = shape(call, 64)?;
    single(call)?;
    let element = [element(call)?, element(call)?];
    let bytes = element[0].bytes();
    if k * bytes != 32 || bytes != element[1].bytes() || n % 8 != 0 || !(8..=256).contains(&n) {
        return Err(call.unsupported());
    }
    let d = call.dst_vector(0)?;
    if d.len() != n / 2 {
        return Err(call.error(format!("{} accumulators for n = {n}", d.len())));
    }
    let in_registers = matches!(call.operand(1)?, Operand::Vector(_));
    let a = if in_registers {
        let rows = call.src_vector(1, U32)?;
        MatrixA::Registers(four(call, &rows)?)
    } else {
        MatrixA::Descriptor(call.src(1, U64)?)
    };
    let b = call.src(2, U64)?;
    let scale_d = call.src(3, PRED)?;
    let negate = [scale(call, 4)?, scale(call, 5)?];
    let transpose = match (bytes, in_registers) {
        (1, _) => [false, false],
        (_, true) => [false, call.immediate(6)? == 1],
        (_, false) => [call.immediate(6)? == 1, call.immediate(7)? == 1],
    };
    let d = d.into();
    call.emit(Op::Wgmma(Box::new(Wgmma { n, element, a, b, d, scale_d, negate, transpose })));
    Ok(())
}

/// `1`, or `-1` for a negated operand.
fn scale(call: &mut Call, index: usize) -> Result<bool, ParseError> {
    match call.immediate(index)? as i64 {
        1 => Ok(false),
        -1 => Ok(true),
        other => Err(call.error(format!("{other} is not a scale of 1 or -1"))),
    }
}
