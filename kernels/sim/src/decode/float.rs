//! Floating-point arithmetic and comparison.

use super::{Call, lanes};
use crate::number::{BF16, F16, F32, Format, Round, decode as value, encode, fma_odd};
use crate::program::Constant;
use crate::ptx::ParseError;
use crate::types::{Kind, Type};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    let Some(ty) = call.m.peek_ty().filter(|t| matches!(t.kind, Kind::Float | Kind::Bfloat)) else {
        return Ok(false);
    };
    match call.m.base {
        "add" | "sub" | "mul" | "fma" | "mad" if ty.bits == 64 => double(call)?,
        "add" | "sub" | "mul" | "fma" | "mad" => fused(call)?,
        "min" | "max" | "div" | "copysign" => binary(call)?,
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => unary(call)?,
        "neg" | "abs" => sign(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// How a lane computes: format, rounding, flushing, packing, in the bits of a constant operand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings(pub u64);

const ROUNDS: [Round; 5] = [Round::Nearest, Round::Zero, Round::Down, Round::Up, Round::Away];
const FTZ: u64 = 1 << 4;
const SATURATE: u64 = 1 << 5;
const RELU: u64 = 1 << 6;
const NEGATE_C: u64 = 1 << 7;
const PACKED: u64 = 1 << 8;
const NAN: u64 = 1 << 9;
const BFLOAT: u64 = 1 << 10;
const SINGLE: u64 = 1 << 11;

impl Settings {
    /// Takes the modifiers that settings stand for.
    fn take(call: &mut Call, ty: Type) -> Self {
        let round = call.m.take_of(&[("rn", 0), ("rz", 1), ("rm", 2), ("rp", 3)]).unwrap_or(0);
        let flags = [("ftz", FTZ), ("sat", SATURATE), ("relu", RELU), ("NaN", NAN)];
        let flags = flags.into_iter().filter(|(name, _)| call.m.take(name)).map(|(_, bit)| bit).sum::<u64>();
        let kind = if ty.kind == Kind::Bfloat {
            BFLOAT
        } else if ty.packed == 1 && ty.bits == 32 {
            SINGLE
        } else {
            0
        };
        Self(round | flags | kind | if ty.packed == 2 { PACKED } else { 0 })
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn format(self) -> Format {
        if self.has(SINGLE) {
            F32
        } else if self.has(BFLOAT) {
            BF16
        } else {
            F16
        }
    }

    fn round(self) -> Round {
        ROUNDS[(self.0 & 7) as usize]
    }

    fn value(self, bits: u64) -> f64 {
        let x = if self.has(SINGLE) {
            f64::from(f32::from_bits(bits as u32))
        } else {
            value(bits, self.format())
        };
        self.flushed(x)
    }

    fn flushed(self, x: f64) -> f64 {
        let smallest = if self.has(SINGLE) { f64::from(f32::MIN_POSITIVE) } else { 6.103515625e-5 };
        if self.has(FTZ) && x.abs() < smallest { 0f64.copysign(x) } else { x }
    }

    fn bits(self, x: f64) -> u64 {
        let x = if self.has(SATURATE) && x.is_nan() { 0.0 } else { x };
        let x = if self.has(SATURATE) { x.clamp(0.0, 1.0) } else { x };
        let x = if self.has(RELU) && x < 0.0 { 0.0 } else { x };
        let bits = encode(x, self.format(), self.round(), false);
        if self.has(FTZ) {
            encode(self.flushed(value(bits, self.format())), self.format(), Round::Nearest, false)
        } else {
            bits
        }
    }

    /// Applies a function of values to the lane, or to both of its halves.
    fn apply(self, a: u64, b: u64, c: u64, f: impl Fn(f64, f64, f64) -> f64) -> u64 {
        let one = |a, b, c| self.bits(f(self.value(a), self.value(b), self.value(c)));
        if self.has(PACKED) {
            one(a & 0xffff, b & 0xffff, c & 0xffff) | one(a >> 16, b >> 16, c >> 16) << 16
        } else {
            one(a, b, c)
        }
    }
}

fn fused_lane(a: u64, b: u64, c: u64, settings: u64) -> u64 {
    let settings = Settings(settings);
    settings.apply(a, b, c, |a, b, c| fma_odd(a, b, if settings.has(NEGATE_C) { -c } else { c }))
}

/// `add`, `sub`, `mul` and `fma` are all `a·b + c`: with b = 1, or with c = −0.
fn fused(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.m.peek_ty().ok_or_else(|| call.unsupported())?;
    let mut settings = Settings::take(call, ty);
    call.ty()?;
    let base = call.m.base;
    let d = call.dst(0)?;
    let (a, b) = (call.src(1, ty)?, call.src(2, ty)?);
    let c = if matches!(base, "fma" | "mad") { Some(call.src(3, ty)?) } else { None };
    if settings.0 == SINGLE {
        let f = match base {
            "add" => lanes!(|a, b| single(f32::from_bits(a as u32) + f32::from_bits(b as u32))),
            "sub" => lanes!(|a, b| single(f32::from_bits(a as u32) - f32::from_bits(b as u32))),
            "mul" => lanes!(|a, b| single(f32::from_bits(a as u32) * f32::from_bits(b as u32))),
            _ => lanes!(|a, b, c| single(
                f32::from_bits(a as u32).mul_add(f32::from_bits(b as u32), f32::from_bits(c as u32))
            )),
        };
        call.lanes(f, d, &[a, b, c.unwrap_or(0)]);
        return Ok(());
    }
    let repeated = |bits: u64| if settings.has(PACKED) { bits | bits << 16 } else { bits };
    let one = repeated(encode(1.0, settings.format(), Round::Nearest, false));
    let minus_zero = repeated(1 << (settings.format().bits - 1));
    if base == "sub" {
        settings.0 |= NEGATE_C;
    }
    let one = call.builder.constant(Constant::Bits(one));
    let minus_zero = call.builder.constant(Constant::Bits(minus_zero));
    let [a, b, c] = match base {
        "add" | "sub" => [a, one, b],
        "mul" => [a, b, minus_zero],
        _ => [a, b, c.unwrap_or(minus_zero)],
    };
    let settings = call.builder.constant(Constant::Bits(settings.0));
    call.lanes(lanes!(|a, b, c, s| fused_lane(a, b, c, s)), d, &[a, b, c, settings]);
    Ok(())
}

/// Bits of an f32 result; every NaN is the canonical one.
fn single(x: f32) -> u64 {
    if x.is_nan() { F32.nan } else { x.to_bits().into() }
}

fn double(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.ty()?;
    call.m.take("rn");
    let d = call.dst(0)?;
    let mut s = vec![call.src(1, ty)?, call.src(2, ty)?];
    let f = match call.m.base {
        "add" => lanes!(|a, b| (f64::from_bits(a) + f64::from_bits(b)).to_bits()),
        "sub" => lanes!(|a, b| (f64::from_bits(a) - f64::from_bits(b)).to_bits()),
        "mul" => lanes!(|a, b| (f64::from_bits(a) * f64::from_bits(b)).to_bits()),
        _ => {
            s.push(call.src(3, ty)?);
            lanes!(|a, b, c| f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits())
        }
    };
    call.lanes(f, d, &s);
    Ok(())
}

fn binary(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.m.peek_ty().ok_or_else(|| call.unsupported())?;
    let settings = Settings::take(call, ty);
    call.ty()?;
    let approximate = call.m.take("approx") || call.m.take("full");
    let d = call.dst(0)?;
    let (a, b) = (call.src(1, ty)?, call.src(2, ty)?);
    let f = match (call.m.base, ty.bits) {
        ("div", 32) if ty.packed == 1 => {
            if settings.round() != Round::Nearest && !approximate {
                return Err(call.unsupported());
            }
            lanes!(|a, b, _c, s| Settings(s).apply(a, b, 0, |a, b, _| f64::from(a as f32 / b as f32)))
        }
        ("div", 64) => lanes!(|a, b| (f64::from_bits(a) / f64::from_bits(b)).to_bits()),
        ("min", 64) => lanes!(|a, b| least(f64::from_bits(a), f64::from_bits(b), false).to_bits()),
        ("max", 64) => lanes!(|a, b| (-least(-f64::from_bits(a), -f64::from_bits(b), false)).to_bits()),
        ("min", _) => {
            lanes!(|a, b, _c, s| Settings(s).apply(a, b, 0, |a, b, _| least(a, b, Settings(s).has(NAN))))
        }
        ("max", _) => {
            lanes!(|a, b, _c, s| Settings(s).apply(a, b, 0, |a, b, _| -least(-a, -b, Settings(s).has(NAN))))
        }
        ("copysign", 32) => lanes!(|a, b| b & 0x7fff_ffff | a & 0x8000_0000),
        ("copysign", 64) => lanes!(|a, b| b & (u64::MAX >> 1) | a & 1 << 63),
        _ => return Err(call.unsupported()),
    };
    let settings = call.builder.constant(Constant::Bits(settings.0));
    call.lanes(f, d, &[a, b, 0, settings]);
    Ok(())
}

/// The smaller one; −0 is below +0, and NaN loses against a number unless it has to win.
fn least(a: f64, b: f64, nan_wins: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::NAN,
        (true, false) => {
            if nan_wins {
                a
            } else {
                b
            }
        }
        (false, true) => {
            if nan_wins {
                b
            } else {
                a
            }
        }
        (false, false) => {
            if a.total_cmp(&b).is_le() {
                a
            } else {
                b
            }
        }
    }
}

/// Approximations are computed in f64 and rounded once, which is within the bounds of the instruction set.
fn unary(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.m.peek_ty().ok_or_else(|| call.unsupported())?;
    let settings = Settings::take(call, ty);
    call.ty()?;
    call.m.take("approx");
    let f = match (call.m.base, ty.bits == 64) {
        ("rcp", true) => lanes!(|a| (1.0 / f64::from_bits(a)).to_bits()),
        ("sqrt", true) => lanes!(|a| f64::from_bits(a).sqrt().to_bits()),
        ("rsqrt", true) => lanes!(|a| (1.0 / f64::from_bits(a).sqrt()).to_bits()),
        ("rcp", _) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| 1.0 / a)),
        ("sqrt", _) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| a.sqrt())),
        ("rsqrt", _) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| 1.0 / a.sqrt())),
        ("sin", false) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| a.sin())),
        ("cos", false) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| a.cos())),
        ("lg2", false) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| a.log2())),
        ("ex2", false) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| a.exp2())),
        ("tanh", false) => lanes!(|a, _b, _c, s| Settings(s).apply(a, 0, 0, |a, _, _| a.tanh())),
        _ => return Err(call.unsupported()),
    };
    let d = call.dst(0)?;
    let a = call.src(1, ty)?;
    let settings = call.builder.constant(Constant::Bits(settings.0));
    call.lanes(f, d, &[a, 0, 0, settings]);
    Ok(())
}

fn sign(call: &mut Call) -> Result<(), ParseError> {
    let ty = call.ty()?;
    call.m.take("ftz");
    let signs: u64 = match (ty.packed, ty.bits) {
        (2, _) => 0x8000_8000,
        (_, bits) => 1 << (bits - 1),
    };
    let d = call.dst(0)?;
    let a = call.src(1, ty)?;
    let signs = call.builder.constant(Constant::Bits(signs));
    let f = if call.m.base == "neg" { lanes!(|a, signs| a ^ signs) } else { lanes!(|a, signs| a & !signs) };
    call.lanes(f, d, &[a, signs]);
    Ok(())
}

/// Value of an f32 whose subnormals count as zero.
pub(super) fn flushed_single(bits: u64) -> f64 {
    Settings(SINGLE | FTZ).value(bits)
}
