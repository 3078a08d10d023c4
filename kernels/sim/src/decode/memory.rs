//! Loads, stores and atomic operations.

use super::Call;
use super::call::U64;
use crate::number::{BF16, F16, Round, decode as value, encode, fma_odd};
use crate::op::{Access, Space, Update};
use crate::program::{Op, Reg};
use crate::ptx::ParseError;
use crate::types::{Kind, Type};

pub(super) fn decode(call: &mut Call) -> Result<bool, ParseError> {
    match call.m.base {
        "ld" | "ldu" => load(call)?,
        "st" => store(call)?,
        "atom" | "red" => atomic(call)?,
        "isspacep" => return Err(call.unsupported()),
        "prefetch" | "prefetchu" | "applypriority" | "discard" => hint(call)?,
        "createpolicy" => policy(call)?,
        _ => return Ok(false),
    }
    Ok(true)
}

const SPACES: [(&str, Space); 8] = [
    ("shared::cluster", Space::Cluster),
    ("shared::cta", Space::Shared),
    ("shared", Space::Shared),
    ("global", Space::Global),
    ("const", Space::Constant),
    ("param", Space::Parameter),
    ("param::entry", Space::Parameter),
    ("local", Space::Local),
];

/// Modifiers that only concern ordering, scopes and caches: the simulator executes every access in order.
const ORDERS: [&str; 24] = [
    "weak",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "nc",
    "wb",
    "wt",
    "noftz",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L1::no_allocate",
    "L1::evict_first",
];
const EVICTIONS: [&str; 7] = [
    "L1::evict_last",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "mmio",
];

impl Call<'_, '_> {
    pub fn take_space(&mut self) -> Option<Space> {
        self.m.take_of(&SPACES)
    }

    pub fn take_orders(&mut self) {
        for order in ORDERS.iter().chain(&EVICTIONS) {
            self.m.take(order);
        }
    }
}

struct Shape {
    space: Space,
    ty: Type,
    count: u32,
    hinted: bool,
}

fn shape(call: &mut Call) -> Result<Shape, ParseError> {
    call.take_orders();
    let hinted = call.m.take("L2::cache_hint");
    let space = call.take_space().unwrap_or(Space::Generic);
    let count = call.m.take_of(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
    let ty = call.ty()?;
    if ty.bytes() as u32 * count > 16 || ty.bits < 8 {
        return Err(call.unsupported());
    }
    Ok(Shape { space, ty, count, hinted })
}

fn access(call: &mut Call, index: usize, shape: &Shape) -> Result<Access, ParseError> {
    let at = call.address(index, shape.space)?;
    let (space, width, count) = (shape.space, shape.ty.bytes() as u32, shape.count);
    Ok(Access { space, address: at.row, offset: at.offset, width, count })
}

fn rows(call: &Call, found: &[Reg], count: u32) -> Result<[Reg; 4], ParseError> {
    if found.len() != count as usize {
        return Err(call.error(format!("{} registers for a vector of {count}", found.len())));
    }
    let mut rows = [0; 4];
    rows[..found.len()].copy_from_slice(found);
    Ok(rows)
}

fn load(call: &mut Call) -> Result<(), ParseError> {
    let constant = call.m.take("nc");
    let shape = shape(call)?;
    let found = call.dst_vector(0)?;
    let at = access(call, 1, &shape)?;
    if shape.hinted {
        call.src(2, U64)?;
    }
    let d = rows(call, &found, shape.count)?;
    let register = call.builder.type_of(d[0]).bits;
    if register < shape.ty.bits {
        return Err(call.error("the register is narrower than what it is loaded with"));
    }
    let sign = shape.ty.signed().then_some((shape.ty.bits, register));
    call.emit(Op::Load { at, d, sign, constant });
    Ok(())
}

fn store(call: &mut Call) -> Result<(), ParseError> {
    let shape = shape(call)?;
    let at = access(call, 0, &shape)?;
    let found = call.src_vector(1, shape.ty)?;
    if shape.hinted {
        call.src(2, U64)?;
    }
    let s = rows(call, &found, shape.count)?;
    call.emit(Op::Store { at, s });
    Ok(())
}

const OPERATIONS: [(&str, &str); 10] = [
    ("add", "add"),
    ("min", "min"),
    ("max", "max"),
    ("inc", "inc"),
    ("dec", "dec"),
    ("and", "and"),
    ("or", "or"),
    ("xor", "xor"),
    ("exch", "exch"),
    ("cas", "cas"),
];

fn atomic(call: &mut Call) -> Result<(), ParseError> {
    let operation = call.m.take_of(&OPERATIONS).ok_or_else(|| call.unsupported())?;
    let shape = shape(call)?;
    let f = update(operation, shape.ty).ok_or_else(|| call.unsupported())?;
    let returns = call.m.base == "atom";
    let d = if returns { Some(call.dst(0)?) } else { None };
    let first = usize::from(returns);
    let at = access(call, first, &shape)?;
    let b = call.src(first + 1, shape.ty)?;
    let c = if operation == "cas" { call.src(first + 2, shape.ty)? } else { 0 };
    if shape.count > 1 || shape.hinted {
        return Err(call.unsupported());
    }
    call.emit(Op::Atomic { at, f, d, s: [b, c] });
    Ok(())
}

fn update(operation: &str, ty: Type) -> Option<Update> {
    if matches!(ty.kind, Kind::Float | Kind::Bfloat) {
        return float_update(operation, ty);
    }
    let wide = ty.bits == 64;
    Some(match (operation, ty.signed(), wide) {
        ("add", _, false) => |old, b, _| (old as u32).wrapping_add(b as u32).into(),
        ("add", _, true) => |old, b, _| old.wrapping_add(b),
        ("min", true, false) => |old, b, _| (old as i32).min(b as i32) as u32 as u64,
        ("max", true, false) => |old, b, _| (old as i32).max(b as i32) as u32 as u64,
        ("min", true, true) => |old, b, _| (old as i64).min(b as i64) as u64,
        ("max", true, true) => |old, b, _| (old as i64).max(b as i64) as u64,
        ("min", false, _) => |old, b, _| old.min(b),
        ("max", false, _) => |old, b, _| old.max(b),
        ("inc", ..) => |old, b, _| if old >= b { 0 } else { old + 1 },
        ("dec", ..) => |old, b, _| if old == 0 || old > b { b } else { old - 1 },
        ("and", ..) => |old, b, _| old & b,
        ("or", ..) => |old, b, _| old | b,
        ("xor", ..) => |old, b, _| old ^ b,
        ("exch", ..) => |_, b, _| b,
        ("cas", ..) => |old, b, c| if old == b { c } else { old },
        _ => return None,
    })
}

fn float_update(operation: &str, ty: Type) -> Option<Update> {
    Some(match (operation, ty.kind, ty.bits, ty.packed) {
        ("add", Kind::Float, 32, 1) => {
            |old, b, _| (f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits().into()
        }
        ("add", Kind::Float, 64, 1) => |old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        ("add", Kind::Float, 16, 1) => |old, b, _| half_sum(old, b, F16),
        ("add", Kind::Bfloat, 16, 1) => |old, b, _| half_sum(old, b, BF16),
        ("add", Kind::Float, 32, 2) => |old, b, _| halves(old, b, |x, y| half_sum(x, y, F16)),
        ("add", Kind::Bfloat, 32, 2) => |old, b, _| halves(old, b, |x, y| half_sum(x, y, BF16)),
        _ => return None,
    })
}

fn half_sum(a: u64, b: u64, format: crate::number::Format) -> u64 {
    encode(fma_odd(value(a, format), 1.0, value(b, format)), format, Round::Nearest, false)
}

fn halves(a: u64, b: u64, f: impl Fn(u64, u64) -> u64) -> u64 {
    f(a & 0xffff, b & 0xffff) | f(a >> 16, b >> 16) << 16
}

/// Prefetches and priorities have no effect on results.
fn hint(call: &mut Call) -> Result<(), ParseError> {
    call.take_orders();
    let space = call.take_space().unwrap_or(Space::Generic);
    for level in ["L1", "L2", "tensormap"] {
        call.m.take(level);
    }
    call.address(0, space)?;
    if call.count() == 2 {
        call.immediate(1)?;
    }
    call.emit(Op::Nop);
    Ok(())
}

fn policy(call: &mut Call) -> Result<(), ParseError> {
    call.take_orders();
    call.m.take("fractional");
    call.ty()?;
    let d = call.dst(0)?;
    for i in 1..call.count() {
        call.src(i, Type { kind: Kind::Float, bits: 32, packed: 1 })?;
    }
    call.lanes(super::lanes!(|a| a), d, &[0]);
    Ok(())
}
