//! Moves, logic, shifts and bit fields.

use super::call::U32;
use super::{Call, for_integers, lanes};
use crate::program::{Constant, Lanes, Op, Reg};
use crate::ptx::{Operand, ParseError};
use crate::types::{Kind, Type};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "mov" => move_value(call)?,
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" => logic(call)?,
        "shf" => funnel(call)?,
        "popc" | "clz" | "brev" | "bfind" => count(call)?,
        "bfe" | "bfi" | "bmsk" | "szext" => field(call)?,
        "lop3" => lop3(call)?,
        "prmt" => permute(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn move_value(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.ty()?;
    if let Operand::Vector(items) = call.operand(0)? {
        return unpack(call, items, ty);
    }
    if let Operand::Vector(items) = call.operand(1)? {
        return pack(call, items, ty);
    }
    let d = call.dst(0)?;
    if let Operand::Name("%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo", 0) =
        call.operand(1)?
    {
        call.emit(Op::Clock { d });
        return Ok(());
    }
    let a = call.src(1, ty)?;
    let f = match ty.bits {
        8 | 16 => lanes!(|a| a & 0xffff),
        32 => lanes!(|a| a & 0xffff_ffff),
        _ => lanes!(|a| a),
    };
    call.emit(Op::Lanes { f, d, s: [a, 0, 0, 0], copies: true });
    Ok(())
}

/// `mov.b64 {a, b}, c`: the parts from the least significant one up.
fn unpack<'a>(call: &mut Call<'_, 'a>, items: &[Operand<'a>], ty: Type) -> Result<(), ParseError> {
    let a = call.src(1, ty)?;
    let d: Vec<Reg> = items.iter().map(|o| call.destination(o)).collect::<Result<_, _>>()?;
    if !matches!(d.len(), 2 | 4) {
        return Err(call.unsupported());
    }
    let part = ty.bits as usize / d.len();
    let f = lanes!(|a, shift, mask| a >> shift & mask);
    for (i, d) in d.into_iter().enumerate() {
        let shift = call.builder.constant(Constant::Bits((i * part) as u64));
        let mask = call.builder.constant(Constant::Bits((1 << part.min(63)) - 1));
        call.lanes(f, d, &[a, shift, mask]);
    }
    Ok(())
}

fn pack<'a>(call: &mut Call<'_, 'a>, items: &[Operand<'a>], ty: Type) -> Result<(), ParseError> {
    let d = call.dst(0)?;
    let part = Type { kind: Kind::Bits, bits: ty.bits / items.len() as u32, packed: 1 };
    let s: Vec<Reg> = items.iter().map(|o| call.source(o, part)).collect::<Result<_, _>>()?;
    let f = match (part.bits, s.len()) {
        (32, 2) => lanes!(|a, b| a & 0xffff_ffff | b << 32),
        (16, 2) => lanes!(|a, b| a & 0xffff | (b & 0xffff) << 16),
        (16, 4) => lanes!(|a, b, c, d| a & 0xffff | (b & 0xffff) << 16 | (c & 0xffff) << 32 | d << 48),
        (8, 4) => lanes!(|a, b, c, d| a & 0xff | (b & 0xff) << 8 | (c & 0xff) << 16 | (d & 0xff) << 24),
        (8, 2) => lanes!(|a, b| a & 0xff | (b & 0xff) << 8),
        _ => return Err(call.unsupported()),
    };
    call.lanes(f, d, &s);
    Ok(())
}

fn logic(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.ty()?;
    let base = call.m.base;
    let d = call.dst(0)?;
    let mut s = vec![call.src(1, ty)?];
    if !matches!(base, "not" | "cnot") {
        s.push(call.src(2, if base.starts_with("sh") { U32 } else { ty })?);
    }
    let f = match (base, ty.kind) {
        ("and", _) => lanes!(|a, b| a & b),
        ("or", _) => lanes!(|a, b| a | b),
        ("xor", _) => lanes!(|a, b| a ^ b),
        ("not", Kind::Predicate) => lanes!(|a| a ^ 1),
        _ => shift_or_not(base, ty).ok_or_else(|| call.unsupported())?,
    };
    call.lanes(f, d, &s);
    Ok(())
}

/// Amounts at or above the width shift everything out.
fn shift_or_not(base: &str, ty: Type) -> Option<Lanes> {
    match base {
        "not" => for_integers!(ty, T, U, lanes!(|a| !(a as U) as u64)),
        "cnot" => for_integers!(ty, T, U, lanes!(|a| u64::from(a as U == 0))),
        "shl" => for_integers!(ty, T, U, lanes!(|a, n| (a as U).checked_shl(n as u32).unwrap_or(0) as u64)),
        _ => for_integers!(
            ty,
            T,
            U,
            lanes!(|a, n| ((a as T) >> (n as u32).min(T::BITS - 1) >> u32::from(n as u32 >= T::BITS)) as U
                as u64)
        ),
    }
}

fn funnel(call: &mut Call) -> Result<(), ParseError> {
    let (left, clamp) = (call.m.take("l"), call.m.take("clamp"));
    call.m.take("r");
    call.m.take("wrap");
    call.ty()?;
    let f = match (left, clamp) {
        (true, false) => lanes!(|lo, hi, n| ((hi << 32 | lo) << (n & 31)) >> 32),
        (true, true) => lanes!(|lo, hi, n| ((hi << 32 | lo) << (n & 0xffff_ffff).min(32)) >> 32),
        (false, false) => lanes!(|lo, hi, n| (hi << 32 | lo) >> (n & 31) & 0xffff_ffff),
        (false, true) => lanes!(|lo, hi, n| (hi << 32 | lo) >> (n & 0xffff_ffff).min(32) & 0xffff_ffff),
    };
    three(call, f)
}

fn three(call: &mut Call, f: Lanes) -> Result<(), ParseError> {
    let d = call.dst(0)?;
    let s = [call.src(1, U32)?, call.src(2, U32)?, call.src(3, U32)?];
    call.lanes(f, d, &s);
    Ok(())
}

fn count(call: &mut Call) -> Result<(), ParseError> {
    let amount = call.m.take("shiftamt");
    let ty = call.ty()?;
    let f = match call.m.base {
        "popc" => for_integers!(ty, T, U, lanes!(|a| (a as U).count_ones() as u64)),
        "clz" => for_integers!(ty, T, U, lanes!(|a| (a as U).leading_zeros() as u64)),
        "brev" => for_integers!(ty, T, U, lanes!(|a| (a as U).reverse_bits() as u64)),
        _ if amount => {
            for_integers!(ty, T, U, lanes!(|a| top(a as T as i64 as u64, U::BITS, true, T::MIN != 0)))
        }
        _ => for_integers!(ty, T, U, lanes!(|a| top(a as T as i64 as u64, U::BITS, false, T::MIN != 0))),
    };
    let f = f.ok_or_else(|| call.unsupported())?;
    let d = call.dst(0)?;
    let a = call.src(1, ty)?;
    call.lanes(f, d, &[a]);
    Ok(())
}

/// `bfind`: position of the most significant bit that is not a sign bit; all ones when there is none.
fn top(value: u64, bits: u32, amount: bool, signed: bool) -> u64 {
    let value = if signed && (value as i64) < 0 { !value } else { value };
    let value = if bits == 32 { value & 0xffff_ffff } else { value };
    match value.checked_ilog2() {
        None => 0xffff_ffff,
        Some(at) => (if amount { bits - 1 - at } else { at }).into(),
    }
}

fn field(call: &mut Call) -> Result<(), ParseError> {
    let base = call.m.base;
    let ty = call.ty()?;
    if !matches!(base, "bfe" | "bfi") {
        return Err(call.unsupported());
    }
    let d = call.dst(0)?;
    let sources = if base == "bfe" { 1 } else { 2 };
    let mut s = vec![];
    for i in 0..sources + 2 {
        s.push(call.src(i + 1, if i < sources { ty } else { U32 })?);
    }
    let f = match (base, ty.signed(), ty.bits) {
        ("bfe", false, 32) => lanes!(|a, at, len| extract(a, at, len, 32, false)),
        ("bfe", true, 32) => lanes!(|a, at, len| extract(a, at, len, 32, true)),
        ("bfe", false, 64) => lanes!(|a, at, len| extract(a, at, len, 64, false)),
        ("bfe", true, 64) => lanes!(|a, at, len| extract(a, at, len, 64, true)),
        ("bfi", _, 32) => lanes!(|a, b, at, len| insert(a, b, at, len) & 0xffff_ffff),
        ("bfi", _, 64) => lanes!(|a, b, at, len| insert(a, b, at, len)),
        _ => return Err(call.unsupported()),
    };
    call.lanes(f, d, &s);
    Ok(())
}

/// `bfe`: bits past the end are copies of the sign, or zeros.
fn extract(a: u64, at: u64, len: u64, bits: u32, signed: bool) -> u64 {
    let (at, len) = ((at & 0xff) as u32, (len & 0xff) as u32);
    let wide = if signed && bits == 32 {
        a as u32 as i32 as i128
    } else if signed {
        a as i64 as i128
    } else {
        a as i128
    };
    let value = if len == 0 { 0 } else { wide >> at.min(127) };
    let value = if len >= bits || len == 0 {
        value
    } else if signed {
        value << (128 - len) >> (128 - len)
    } else {
        value & ((1 << len) - 1)
    };
    if bits == 32 { value as u32 as u64 } else { value as u64 }
}

fn insert(a: u64, b: u64, at: u64, len: u64) -> u64 {
    let (at, len) = ((at & 0xff) as u32, (len & 0xff) as u32);
    let mask = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let mask = mask.checked_shl(at).unwrap_or(0);
    b & !mask | a.checked_shl(at).unwrap_or(0) & mask
}

fn lop3(call: &mut Call) -> Result<(), ParseError> {
    call.ty()?;
    let d = call.dst(0)?;
    let s = [call.src(1, U32)?, call.src(2, U32)?, call.src(3, U32)?, call.src(4, U32)?];
    call.lanes(lanes!(|a, b, c, table| lop3_bits(a, b, c, table)), d, &s);
    Ok(())
}

/// Bit `i` of the table is the result for the bits of a, b, c that spell `i`.
fn lop3_bits(a: u64, b: u64, c: u64, table: u64) -> u64 {
    let minterm = |i: u64| {
        let pick = |x: u64, bit: u64| if i >> bit & 1 == 1 { x } else { !x };
        if table >> i & 1 == 1 { pick(a, 2) & pick(b, 1) & pick(c, 0) } else { 0 }
    };
    (0..8).fold(0, |bits, i| bits | minterm(i)) & 0xffff_ffff
}

fn permute(call: &mut Call) -> Result<(), ParseError> {
    call.ty()?;
    let modes: [(&str, Lanes); 6] = [
        ("f4e", lanes!(|a, b, c| prmt(a, b, spread(c, [0, 1, 2, 3])))),
        ("b4e", lanes!(|a, b, c| prmt(a, b, spread(c, [0, 7, 6, 5])))),
        ("rc8", lanes!(|a, b, c| prmt(a, b, (c & 3) * 0x1111))),
        ("ecl", lanes!(|a, b, c| prmt(a, b, (0..4).map(|i| i.max(c & 3) << (4 * i)).sum()))),
        ("ecr", lanes!(|a, b, c| prmt(a, b, (0..4).map(|i| i.min(c & 3) << (4 * i)).sum()))),
        ("rc16", lanes!(|a, b, c| prmt(a, b, if c & 1 == 0 { 0x1010 } else { 0x3232 }))),
    ];
    let f = call.m.take_of(&modes).unwrap_or(lanes!(|a, b, c| prmt(a, b, c)));
    three(call, f)
}

fn spread(c: u64, from: [u64; 4]) -> u64 {
    from.iter().enumerate().map(|(i, f)| ((f + (c & 3)) & 7) << (4 * i)).sum()
}

/// Byte `i` of the result is the byte that nibble `i` of `selector` names, or its sign bit eight times.
fn prmt(a: u64, b: u64, selector: u64) -> u64 {
    let both = a & 0xffff_ffff | b << 32;
    (0..4).fold(0, |result, i| {
        let nibble = selector >> (4 * i) & 0xf;
        let byte = both >> (8 * (nibble & 7)) & 0xff;
        let byte = if nibble & 8 == 0 { byte } else { (byte >> 7) * 0xff };
        result | byte << (8 * i)
    })
}
