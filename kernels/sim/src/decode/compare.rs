//! Comparisons, tests of floating-point numbers, and selections.

use super::call::PRED;
use super::float::flushed_single;
use super::{Call, for_integers, lanes};
use crate::number::{BF16, F16, decode as value};
use crate::program::{Lanes, Reg};
use crate::ptx::{Operand, ParseError};
use crate::types::{Kind, Type};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "selp" | "slct" => select(call)?,
        "setp" | "set" => compare(call)?,
        "testp" => test(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn select(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.ty()?;
    let d = call.dst(0)?;
    let (a, b) = (call.src(1, ty)?, call.src(2, ty)?);
    if call.m.base == "selp" {
        let p = call.src(3, PRED)?;
        call.lanes(lanes!(|a, b, p| if p & 1 == 1 { a } else { b }), d, &[a, b, p]);
        return Ok(());
    }
    let by = call.ty()?;
    let c = call.src(3, by)?;
    let f = if by.kind == Kind::Float {
        lanes!(|a, b, c| if f32::from_bits(c as u32) >= 0.0 { a } else { b })
    } else {
        lanes!(|a, b, c| if c >> 31 & 1 == 0 { a } else { b })
    };
    call.lanes(f, d, &[a, b, c]);
    Ok(())
}

type Combine = Option<Lanes>;

/// `setp` and `set`, of integers and of floating-point numbers.
fn compare(call: &mut Call) -> Result<(), ParseError> {
    let name = call.m.next().ok_or_else(|| call.unsupported())?;
    let ops: [(&str, Combine); 3] = [
        ("and", Some(lanes!(|a, b| a & b))),
        ("or", Some(lanes!(|a, b| a | b))),
        ("xor", Some(lanes!(|a, b| a ^ b))),
    ];
    let combine = call.m.take_of(&ops).flatten();
    let ftz = call.m.take("ftz");
    let sets = call.m.base == "set";
    let result = if sets { Some(call.ty()?) } else { None };
    let ty = call.ty()?;
    let f = if ty.integer() { integer_comparison(name, ty) } else { comparison(name, ty, ftz) };
    let f = f.ok_or_else(|| call.error(format!("comparison `.{name}` of this type is not supported")))?;
    let (d, q) = call.dst_pair(0)?;
    let (a, b) = (call.src(1, ty)?, call.src(2, ty)?);
    let c = combine.map(|f| Ok((f, call.src(3, PRED)?))).transpose()?;
    let holds = call.builder.scratch();
    call.lanes(f, holds, &[a, b]);
    let Some(result) = result else {
        let (fails, second) = (call.builder.scratch(), call.builder.scratch());
        if matches!(call.operand(0)?, Operand::Pair(..)) {
            call.lanes(lanes!(|a| a ^ 1), fails, &[holds]);
            combine_into(call, fails, second, c);
            combine_into(call, holds, d, c);
            call.lanes(lanes!(|a| a), q, &[second]);
        } else {
            combine_into(call, holds, d, c);
        }
        return Ok(());
    };
    let whole = call.builder.scratch();
    combine_into(call, holds, whole, c);
    let spread = match (result.kind, result.bits) {
        (Kind::Float, 32) => lanes!(|p| p * u64::from(1f32.to_bits())),
        (Kind::Bits | Kind::Unsigned | Kind::Signed, 32) => lanes!(|p| p * 0xffff_ffff),
        _ => return Err(call.unsupported()),
    };
    call.lanes(spread, d, &[whole]);
    Ok(())
}

fn combine_into(call: &mut Call, value: Reg, d: Reg, c: Option<(Lanes, Reg)>) {
    match c {
        None => call.lanes(lanes!(|a| a), d, &[value]),
        Some((f, c)) => call.lanes(f, d, &[value, c]),
    }
}

fn integer_comparison(name: &str, ty: Type) -> Option<Lanes> {
    match name {
        "eq" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as T == b as T))),
        "ne" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as T != b as T))),
        "lt" => for_integers!(ty, T, U, lanes!(|a, b| u64::from((a as T) < b as T))),
        "le" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as T <= b as T))),
        "gt" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as T > b as T))),
        "ge" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as T >= b as T))),
        "lo" => for_integers!(ty, T, U, lanes!(|a, b| u64::from((a as U) < b as U))),
        "ls" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as U <= b as U))),
        "hi" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as U > b as U))),
        "hs" => for_integers!(ty, T, U, lanes!(|a, b| u64::from(a as U >= b as U))),
        _ => None,
    }
}

fn test(call: &mut Call) -> Result<(), ParseError> {
    let tests: [(&str, [Lanes; 2]); 4] = [
        (
            "finite",
            [
                lanes!(|a| u64::from(f32::from_bits(a as u32).is_finite())),
                lanes!(|a| u64::from(f64::from_bits(a).is_finite())),
            ],
        ),
        (
            "infinite",
            [
                lanes!(|a| u64::from(f32::from_bits(a as u32).is_infinite())),
                lanes!(|a| u64::from(f64::from_bits(a).is_infinite())),
            ],
        ),
        (
            "number",
            [
                lanes!(|a| u64::from(!f32::from_bits(a as u32).is_nan())),
                lanes!(|a| u64::from(!f64::from_bits(a).is_nan())),
            ],
        ),
        (
            "notanumber",
            [
                lanes!(|a| u64::from(f32::from_bits(a as u32).is_nan())),
                lanes!(|a| u64::from(f64::from_bits(a).is_nan())),
            ],
        ),
    ];
    let pair = call.m.take_of(&tests).ok_or_else(|| call.unsupported())?;
    let ty = call.ty()?;
    let d = call.dst(0)?;
    let a: Reg = call.src(1, ty)?;
    call.lanes(pair[usize::from(ty.bits == 64)], d, &[a]);
    Ok(())
}

/// The comparison of this name; the ones that end in `u` also hold when an operand is NaN.
fn comparison(name: &str, ty: Type, ftz: bool) -> Option<Lanes> {
    macro_rules! compare {
        ($value:expr) => {
            match name {
                "eq" => lanes!(|a, b| u64::from($value(a) == $value(b))),
                "ne" => lanes!(|a, b| u64::from($value(a) < $value(b) || $value(a) > $value(b))),
                "lt" => lanes!(|a, b| u64::from($value(a) < $value(b))),
                "le" => lanes!(|a, b| u64::from($value(a) <= $value(b))),
                "gt" => lanes!(|a, b| u64::from($value(a) > $value(b))),
                "ge" => lanes!(|a, b| u64::from($value(a) >= $value(b))),
                "num" => lanes!(|a, b| u64::from(!$value(a).is_nan() && !$value(b).is_nan())),
                "nan" => lanes!(|a, b| u64::from($value(a).is_nan() || $value(b).is_nan())),
                "equ" => compare!(or_nan, $value, ==),
                "neu" => lanes!(|a, b| u64::from($value(a) != $value(b))),
                "ltu" => compare!(or_nan, $value, <),
                "leu" => compare!(or_nan, $value, <=),
                "gtu" => compare!(or_nan, $value, >),
                "geu" => compare!(or_nan, $value, >=),
                _ => return None,
            }
        };
        (or_nan, $value:expr, $op:tt) => {
            lanes!(|a, b| {
                let (x, y) = ($value(a), $value(b));
                u64::from(x.is_nan() || y.is_nan() || x $op y)
            })
        };
    }
    let f = match (ty.kind, ty.bits, ftz) {
        (Kind::Float, 32, false) if ty.packed == 1 => compare!((|x: u64| f32::from_bits(x as u32))),
        (Kind::Float, 32, true) if ty.packed == 1 => compare!(flushed_single),
        (Kind::Float, 64, _) => compare!(f64::from_bits),
        (Kind::Float, 16, _) => compare!((|x: u64| value(x, F16))),
        (Kind::Bfloat, 16, _) => compare!((|x: u64| value(x, BF16))),
        _ => return None,
    };
    Some(f)
}
