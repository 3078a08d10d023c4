//! Integer arithmetic.

use super::call::U32;
use super::{Call, for_integers, lanes};
use crate::program::Lanes;
use crate::ptx::ParseError;
use crate::types::Type;

/// Wide enough for any product of two 64-bit integers.
type Wide = i128;

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    let integer = call.m.peek_ty().is_some_and(|t| t.integer() && t.packed == 1);
    match call.m.base {
        "add" | "sub" | "addc" | "subc" if integer => sum(call)?,
        "mul" | "mad" | "madc" if integer => product(call)?,
        "min" | "max" | "div" | "rem" if integer => simple(call, 2)?,
        "neg" | "abs" if integer => simple(call, 1)?,
        "sad" => simple(call, 3)?,
        "dp4a" | "dp2a" => dot(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn simple(call: &mut Call, operands: usize) -> Result<(), ParseError> {
    let ty = call.ty()?;
    let f = function(call.m.base, ty).ok_or_else(|| call.unsupported())?;
    let d = call.dst(0)?;
    let s: Vec<_> = (1..=operands).map(|i| call.src(i, ty)).collect::<Result<_, _>>()?;
    call.lanes(f, d, &s);
    Ok(())
}

fn function(base: &str, ty: Type) -> Option<Lanes> {
    match base {
        "min" => for_integers!(ty, T, U, lanes!(|a, b| (a as T).min(b as T) as U as u64)),
        "max" => for_integers!(ty, T, U, lanes!(|a, b| (a as T).max(b as T) as U as u64)),
        // Division by zero gives an unspecified value; all ones is what the hardware gives.
        "div" => for_integers!(
            ty,
            T,
            U,
            lanes!(|a, b| if b as U == 0 {
                U::MAX as u64
            } else {
                (a as T).wrapping_div(b as T) as U as u64
            })
        ),
        "rem" => for_integers!(
            ty,
            T,
            U,
            lanes!(|a, b| if b as U == 0 { a } else { (a as T).wrapping_rem(b as T) as U as u64 })
        ),
        "neg" => for_integers!(ty, T, U, lanes!(|a| (a as U).wrapping_neg() as u64)),
        "abs" if ty.signed() => for_integers!(
            ty,
            T,
            U,
            lanes!(|a| {
                let v = a as T as i64;
                (if v < 0 { v.wrapping_neg() } else { v }) as U as u64
            })
        ),
        "sad" => for_integers!(
            ty,
            T,
            U,
            lanes!(|a, b, c| {
                let (a, b) = (a as T as Wide, b as T as Wide);
                (c as U).wrapping_add((a - b).unsigned_abs() as U) as u64
            })
        ),
        _ => None,
    }
}

fn sum(call: &mut Call) -> Result<(), ParseError> {
    let (carries, saturates) = (call.m.take("cc"), call.m.take("sat"));
    let ty = call.ty()?;
    let subtract = call.m.base.starts_with("sub");
    let with_carry = call.m.base.len() == 4;
    let d = call.dst(0)?;
    let (a, b) = (call.src(1, ty)?, call.src(2, ty)?);
    if saturates {
        let f = if subtract {
            lanes!(|a, b| (a as i32).saturating_sub(b as i32) as u32 as u64)
        } else {
            lanes!(|a, b| (a as i32).saturating_add(b as i32) as u32 as u64)
        };
        call.lanes(f, d, &[a, b]);
        return Ok(());
    }
    let add =
        for_integers!(ty, T, U, lanes!(|a, b, c| (a as U).wrapping_add(b as U).wrapping_add(c as U) as u64));
    let sub =
        for_integers!(ty, T, U, lanes!(|a, b, c| (a as U).wrapping_sub(b as U).wrapping_sub(c as U) as u64));
    let f = if subtract { sub } else { add }.ok_or_else(|| call.unsupported())?;
    let carry_in = if with_carry { call.carry() } else { 0 };
    if !carries {
        call.lanes(f, d, &[a, b, carry_in]);
        return Ok(());
    }
    let next = call.builder.scratch();
    let carry = match (subtract, ty.bits) {
        (false, 32) => lanes!(|a, b, c| ((a & M32) + (b & M32) + c) >> 32),
        (false, _) => lanes!(|a, b, c| ((a as u128 + b as u128 + c as u128) >> 64) as u64),
        (true, 32) => lanes!(|a, b, c| u64::from((a & M32) < (b & M32) + c)),
        (true, _) => lanes!(|a, b, c| u64::from((a as u128) < b as u128 + c as u128)),
    };
    call.lanes(carry, next, &[a, b, carry_in]);
    call.lanes(f, d, &[a, b, carry_in]);
    let flag = call.carry();
    call.lanes(lanes!(|a| a), flag, &[next]);
    Ok(())
}

const M32: u64 = u32::MAX as u64;

fn product(call: &mut Call) -> Result<(), ParseError> {
    let (hi, wide, _) = (call.m.take("hi"), call.m.take("wide"), call.m.take("lo"));
    let carries = call.m.take("cc") || call.m.base == "madc";
    let ty = call.ty()?;
    if carries {
        return carried_product(call, hi, ty);
    }
    let f = match (hi, wide) {
        (false, false) => for_integers!(
            ty,
            T,
            U,
            lanes!(|a, b, c| (a as U).wrapping_mul(b as U).wrapping_add(c as U) as u64)
        ),
        (true, _) => high(ty),
        (_, true) => wide_product(ty),
    };
    let f = f.ok_or_else(|| call.unsupported())?;
    let d = call.dst(0)?;
    let mut s = vec![call.src(1, ty)?, call.src(2, ty)?];
    if call.m.base == "mad" {
        s.push(call.src(3, if wide { Type { bits: ty.bits * 2, ..ty } } else { ty })?);
    }
    call.lanes(f, d, &s);
    Ok(())
}

fn high(ty: Type) -> Option<Lanes> {
    for_integers!(
        ty,
        T,
        U,
        lanes!(|a, b, c| {
            let product = (a as T as Wide).wrapping_mul(b as T as Wide) as u128;
            ((product >> U::BITS) as U).wrapping_add(c as U) as u64
        })
    )
}

fn wide_product(ty: Type) -> Option<Lanes> {
    match (ty.signed(), ty.bits) {
        (false, 16) => {
            Some(lanes!(|a, b, c| (a as u16 as u32 * b as u16 as u32).wrapping_add(c as u32) as u64))
        }
        (true, 16) => {
            Some(lanes!(|a, b, c| (a as i16 as i32 * b as i16 as i32).wrapping_add(c as i32) as u32 as u64))
        }
        (false, 32) => Some(lanes!(|a, b, c| (a as u32 as u64 * b as u32 as u64).wrapping_add(c))),
        (true, 32) => {
            Some(lanes!(|a, b, c| (a as i32 as i64 * b as i32 as i64).wrapping_add(c as i64) as u64))
        }
        _ => None,
    }
}

/// `mad.cc` and `madc`: the product first, then a sum with carry.
fn carried_product(call: &mut Call, hi: bool, ty: Type) -> Result<(), ParseError> {
    if ty.bits != 32 && ty.bits != 64 {
        return Err(call.unsupported());
    }
    let with_carry = call.m.base == "madc";
    let d = call.dst(0)?;
    let (a, b, c) = (call.src(1, ty)?, call.src(2, ty)?, call.src(3, ty)?);
    let low =
        for_integers!(ty, T, U, lanes!(|a, b, c| (a as U).wrapping_mul(b as U).wrapping_add(c as U) as u64));
    let f = if hi { high(ty) } else { low }.ok_or_else(|| call.unsupported())?;
    let (part, next) = (call.builder.scratch(), call.builder.scratch());
    call.lanes(f, part, &[a, b, 0]);
    let flag = call.carry();
    let carry_in = if with_carry { flag } else { 0 };
    let carry = if ty.bits == 32 {
        lanes!(|a, b, c| ((a & M32) + (b & M32) + c) >> 32)
    } else {
        lanes!(|a, b, c| ((a as u128 + b as u128 + c as u128) >> 64) as u64)
    };
    call.lanes(carry, next, &[part, c, carry_in]);
    let total = if ty.bits == 32 {
        lanes!(|a, b, c| (a + b + c) & M32)
    } else {
        lanes!(|a, b, c| a.wrapping_add(b).wrapping_add(c))
    };
    call.lanes(total, d, &[part, c, carry_in]);
    call.lanes(lanes!(|a| a), flag, &[next]);
    Ok(())
}

/// `dp4a`: sum of four products of bytes, plus c. `dp2a`: two 16-bit values of a by two bytes of b.
fn dot(call: &mut Call) -> Result<(), ParseError> {
    let (two, high) = (call.m.base == "dp2a", call.m.take("hi"));
    call.m.take("lo");
    let (ta, tb) = (call.ty()?, call.ty()?);
    let d = call.dst(0)?;
    let s = [call.src(1, U32)?, call.src(2, U32)?, call.src(3, U32)?];
    let f = match (two, high, ta.signed(), tb.signed()) {
        (false, _, false, false) => lanes!(|a, b, c| dot4(a, b, c, u8::into, u8::into)),
        (false, _, true, false) => lanes!(|a, b, c| dot4(a, b, c, signed, u8::into)),
        (false, _, false, true) => lanes!(|a, b, c| dot4(a, b, c, u8::into, signed)),
        (false, _, true, true) => lanes!(|a, b, c| dot4(a, b, c, signed, signed)),
        (true, false, true, true) => lanes!(|a, b, c| dot2(a, b, c)),
        (true, true, true, true) => lanes!(|a, b, c| dot2(a, b >> 16, c)),
        _ => return Err(call.unsupported()),
    };
    call.lanes(f, d, &s);
    Ok(())
}

fn signed(byte: u8) -> i32 {
    (byte as i8).into()
}

fn dot4(a: u64, b: u64, c: u64, fa: fn(u8) -> i32, fb: fn(u8) -> i32) -> u64 {
    let (a, b) = ((a as u32).to_le_bytes(), (b as u32).to_le_bytes());
    let sum: i32 = a.iter().zip(b).map(|(x, y)| fa(*x) * fb(y)).sum();
    (c as u32).wrapping_add(sum as u32).into()
}

fn dot2(a: u64, b: u64, c: u64) -> u64 {
    let product = |i: u32| (a >> (16 * i)) as i16 as i32 * (b >> (8 * i)) as i8 as i32;
    (c as u32).wrapping_add(product(0).wrapping_add(product(1)) as u32).into()
}

impl Call<'_, '_> {
    /// Row of the condition code's carry.
    fn carry(&mut self) -> u32 {
        self.builder.carry()
    }
}
