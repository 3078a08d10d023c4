//! From statements to decoded instructions.

mod arithmetic;
mod bits;
mod builder;
mod bulk;
mod call;
mod compare;
mod control;
mod convert;
mod float;
mod matrix;
mod mbarrier;
mod memory;
mod modifiers;
mod names;
mod warp;

pub(crate) use builder::Builder;
use call::Call;
pub(crate) use convert::SHARED_WINDOW;
use modifiers::Modifiers;

use crate::ptx::ParseError;

/// Decodes one statement: the first family that knows the opcode takes it.
fn decode(call: &mut Call) -> Result<(), ParseError> {
    let families = [
        arithmetic::decode,
        bits::decode,
        compare::decode,
        float::decode,
        convert::decode,
        memory::decode,
        control::decode,
    ];
    let more = [warp::decode, mbarrier::decode, bulk::decode, matrix::decode];
    for family in families.into_iter().chain(more) {
        if family(call)? {
            return call.finish();
        }
    }
    Err(call.error(format!("`{}` is not a known instruction", call.opcode())))
}

/// Rows of a function of one to four lane values.
macro_rules! lanes {
    (|$a:ident| $e:expr) => {
        (|[a, ..]: [&crate::program::Row; 4]| {
            std::array::from_fn(|i| {
                let $a = a[i];
                $e
            })
        }) as crate::program::Lanes
    };
    (|$a:ident, $b:ident| $e:expr) => {
        (|[a, b, ..]: [&crate::program::Row; 4]| {
            std::array::from_fn(|i| {
                let ($a, $b) = (a[i], b[i]);
                $e
            })
        }) as crate::program::Lanes
    };
    (|$a:ident, $b:ident, $c:ident| $e:expr) => {
        (|[a, b, c, _]: [&crate::program::Row; 4]| {
            std::array::from_fn(|i| {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                $e
            })
        }) as crate::program::Lanes
    };
    (|$a:ident, $b:ident, $c:ident, $d:ident| $e:expr) => {
        (|[a, b, c, d]: [&crate::program::Row; 4]| {
            std::array::from_fn(|i| {
                let ($a, $b, $c, $d) = (a[i], b[i], c[i], d[i]);
                $e
            })
        }) as crate::program::Lanes
    };
}
use lanes;

/// The same function for each integer type of 16 to 64 bits; `$t` and `$u` are the type and its unsigned sibling.
macro_rules! for_integers {
    ($ty:expr, $t:ident, $u:ident, $e:expr) => {{
        macro_rules! with {
            ($T:ty, $U:ty) => {{
                #[allow(dead_code)]
                type $t = $T;
                #[allow(dead_code)]
                type $u = $U;
                Some($e)
            }};
        }
        match ($ty.signed(), $ty.bits) {
            _ if !$ty.integer() => None,
            (false, 16) => with!(u16, u16),
            (false, 32) => with!(u32, u32),
            (false, 64) => with!(u64, u64),
            (true, 16) => with!(i16, u16),
            (true, 32) => with!(i32, u32),
            (true, 64) => with!(i64, u64),
            _ => None,
        }
    }};
}
use for_integers;
