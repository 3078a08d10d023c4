//! `cvt`, and conversions of addresses.

use super::call::U64;
use super::{Call, lanes};
use crate::number::{BF16, E4M3, E5M2, F16, F32, Format, Round, decode as value, encode, odd};
use crate::op::Space;
use crate::program::{Constant, Reg};
use crate::ptx::ParseError;
use crate::types::{Kind, Type};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "cvt" => convert(call)?,
        "cvta" => address(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Generic addresses of shared memory lie in this window; those of every other space are the same in both forms.
pub(crate) const SHARED_WINDOW: u64 = 1 << 62;

fn address(call: &mut Call) -> Result<(), ParseError> {
    let to = call.m.take("to");
    let space = call.take_space().unwrap_or(Space::Generic);
    let ty = call.ty()?;
    if ty.bits != 64 {
        return Err(call.unsupported());
    }
    let d = call.dst(0)?;
    let a = call.src(1, U64)?;
    let f = match (space, to) {
        (Space::Shared | Space::Cluster, true) => lanes!(|a| a.wrapping_sub(SHARED_WINDOW)),
        (Space::Shared | Space::Cluster, false) => lanes!(|a| a.wrapping_add(SHARED_WINDOW)),
        _ => lanes!(|a| a),
    };
    call.lanes(f, d, &[a]);
    Ok(())
}

#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    /// Rounding of the significand, or to an integer.
    round: u64,
    integral: bool,
    flags: u64,
}

const SATURATE: u64 = 1 << 4;
const FINITE: u64 = 1 << 5;
const RELU: u64 = 1 << 6;
const FTZ: u64 = 1 << 7;
const INTEGRAL: u64 = 1 << 8;

fn mode(call: &mut Call) -> Mode {
    let significand = call.m.take_of(&[("rn", 0), ("rz", 1), ("rm", 2), ("rp", 3), ("rna", 4)]);
    let integer = call.m.take_of(&[("rni", 0), ("rzi", 1), ("rmi", 2), ("rpi", 3)]);
    let flags = [("sat", SATURATE), ("satfinite", FINITE), ("relu", RELU), ("ftz", FTZ)];
    let flags = flags.into_iter().filter(|(name, _)| call.m.take(name)).map(|(_, bit)| bit).sum();
    Mode { round: integer.or(significand).unwrap_or(0), integral: integer.is_some(), flags }
}

fn convert(call: &mut Call) -> Result<(), ParseError> {
    let mode = mode(call);
    let (to, from) = (call.ty()?, call.ty()?);
    let d = call.dst(0)?;
    let a = call.src(1, from)?;
    if to.packed == 2 && from.packed == 1 {
        let b = call.src(2, from)?;
        return pair(call, mode, (to, from), d, [a, b]);
    }
    if to.integer() && from.integer() && mode.flags & SATURATE == 0 {
        resize(call, (to, from), d, a);
        return Ok(());
    }
    let fast = match (to.kind, to.bits, from.kind, from.bits, mode.round, mode.flags) {
        (Kind::Float, 32, Kind::Bfloat, 16, ..) => Some(lanes!(|a| bfloat(a))),
        (Kind::Float, 32, Kind::Signed, 32, 0, 0) => Some(lanes!(|a| (a as i32 as f32).to_bits().into())),
        (Kind::Float, 32, Kind::Unsigned, 32, 0, 0) => Some(lanes!(|a| (a as u32 as f32).to_bits().into())),
        _ => None,
    };
    if let Some(f) = fast {
        call.lanes(f, d, &[a]);
        return Ok(());
    }
    let code = settings(mode) | code(call, to)? << 16 | code(call, from)? << 24;
    let code = call.builder.constant(Constant::Bits(code));
    let f = if to.packed == 2 {
        let halves = lanes!(|a, s| {
            let (from, to) = (width(s >> 24), width(s >> 16));
            general(a & ((1 << from) - 1), s) | general(a >> from, s) << to
        });
        if from.packed != 2 {
            return Err(call.unsupported());
        }
        halves
    } else {
        lanes!(|a, s| general(a, s))
    };
    call.lanes(f, d, &[a, code]);
    Ok(())
}

fn bfloat(a: u64) -> u64 {
    let bits = (a as u32) << 16;
    if f32::from_bits(bits).is_nan() { F32.nan } else { bits.into() }
}

/// The first source goes to the upper half.
fn pair(
    call: &mut Call,
    mode: Mode,
    (to, from): (Type, Type),
    d: Reg,
    s: [Reg; 2],
) -> Result<(), ParseError> {
    let code = settings(mode) | code(call, to)? << 16 | code(call, from)? << 24;
    let code = call.builder.constant(Constant::Bits(code));
    let f = lanes!(|a, b, s| general(b, s) | general(a, s) << width(s >> 16));
    call.lanes(f, d, &[s[0], s[1], code]);
    Ok(())
}

/// Integers to integers: extend from the source's width, cut to the target's, extend to the register's.
fn resize(call: &mut Call, (to, from): (Type, Type), d: Reg, a: Reg) {
    let register = call.builder.type_of(d).bits.max(to.bits);
    let f = match (from.signed(), to.signed()) {
        (false, false) => lanes!(|a, s, t, mask| (a << s >> s) << t >> t & mask),
        (true, false) => lanes!(|a, s, t, mask| (((a << s) as i64 >> s) as u64) << t >> t & mask),
        (false, true) => lanes!(|a, s, t, mask| (((a << s >> s) << t) as i64 >> t) as u64 & mask),
        (true, true) => lanes!(|a, s, t, mask| ((((a << s) as i64 >> s) << t) >> t) as u64 & mask),
    };
    let constants = [64 - from.bits, 64 - to.bits].map(|s| call.builder.constant(Constant::Bits(s.into())));
    let mask = call.builder.constant(Constant::Bits(u64::MAX >> (64 - register.min(64))));
    call.lanes(f, d, &[a, constants[0], constants[1], mask]);
}

fn settings(mode: Mode) -> u64 {
    mode.round | mode.flags | if mode.integral { INTEGRAL } else { 0 }
}

const FORMATS: [Format; 5] = [F32, F16, BF16, E4M3, E5M2];
const DOUBLE: u64 = 5;
const INTEGER: u64 = 0x10;
const SIGNED: u64 = 0x20;

/// One byte for the type of one element: a format's index, or a width and sign of an integer.
fn code(call: &Call, ty: Type) -> Result<u64, ParseError> {
    let bits = ty.bits / ty.packed;
    Ok(match (ty.kind, bits) {
        (Kind::Float, 32) => 0,
        (Kind::Float, 16) => 1,
        (Kind::Bfloat, _) => 2,
        (Kind::E4m3, _) => 3,
        (Kind::E5m2, _) => 4,
        (Kind::Float, 64) => DOUBLE,
        (Kind::Signed, _) => INTEGER | SIGNED | u64::from(bits.ilog2()),
        (Kind::Unsigned, _) => INTEGER | u64::from(bits.ilog2()),
        _ => return Err(call.unsupported()),
    })
}

fn width(code: u64) -> u32 {
    let code = code & 0xff;
    match code {
        DOUBLE => 64,
        c if c & INTEGER != 0 => 1 << (c & 0xf),
        c => FORMATS[c as usize].bits,
    }
}

/// A conversion of any type to any other, as the settings say.
fn general(a: u64, s: u64) -> u64 {
    let (to, from) = (s >> 16 & 0xff, s >> 24 & 0xff);
    if from & INTEGER != 0 {
        let shift = 64 - width(from);
        let whole = if from & SIGNED == 0 {
            i128::from(a << shift >> shift)
        } else {
            i128::from((a << shift) as i64 >> shift)
        };
        if to & INTEGER != 0 {
            return clamp(whole, to);
        }
        let near = whole as f64;
        let error = (whole - near as i128) as f64;
        return if to == DOUBLE { near.to_bits() } else { float(odd(near, error), to, s) };
    }
    let x = match from {
        DOUBLE => f64::from_bits(a),
        format => value(a, FORMATS[format as usize]),
    };
    let x = if s & FTZ != 0 && from == 0 && x.abs() < f64::from(f32::MIN_POSITIVE) {
        0f64.copysign(x)
    } else {
        x
    };
    let round = [Round::Nearest, Round::Zero, Round::Down, Round::Up, Round::Away][(s & 7) as usize];
    if to & INTEGER != 0 {
        return if x.is_nan() { 0 } else { clamp(round.integer(x) as i128, to) };
    }
    float(if s & INTEGRAL != 0 { round.integer(x) } else { x }, to, s)
}

fn clamp(whole: i128, to: u64) -> u64 {
    let bits = width(to);
    let (low, high) = if to & SIGNED == 0 {
        (0, (1i128 << bits) - 1)
    } else {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    };
    whole.clamp(low, high) as u64 & (u64::MAX >> (64 - bits))
}

fn float(x: f64, to: u64, s: u64) -> u64 {
    let x = if s & SATURATE != 0 { if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) } } else { x };
    let x = if s & RELU != 0 && (x < 0.0) { 0.0 } else { x };
    if to == DOUBLE {
        return x.to_bits();
    }
    let round = [Round::Nearest, Round::Zero, Round::Down, Round::Up, Round::Away][(s & 7) as usize];
    let bits = encode(x, FORMATS[to as usize], round, s & FINITE != 0);
    let subnormal = to == 0 && bits & 0x7f80_0000 == 0;
    if s & FTZ != 0 && subnormal { bits & 0x8000_0000 } else { bits }
}
