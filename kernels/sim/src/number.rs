//! Floating-point formats: exact decoding, correctly rounded encoding.

use std::sync::LazyLock;

use crate::op::Element;

/// A binary floating-point format of at most 24 significant bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Format {
    pub bits: u32,
    /// Explicit bits of the significand.
    pub mantissa: u32,
    /// Exponent of the smallest normal number.
    pub least: i32,
    /// The largest finite number.
    pub most: f64,
    pub infinity: bool,
    /// Bits of the NaN that arithmetic returns.
    pub nan: u64,
}

pub(crate) const F16: Format =
    Format { bits: 16, mantissa: 10, least: -14, most: 65504.0, infinity: true, nan: 0x7fff };
pub(crate) const BF16: Format =
    Format { bits: 16, mantissa: 7, least: -126, most: 3.3895313892515355e38, infinity: true, nan: 0x7fff };
pub(crate) const F32: Format =
    Format { bits: 32, mantissa: 23, least: -126, most: f32::MAX as f64, infinity: true, nan: 0x7fff_ffff };
pub(crate) const E4M3: Format =
    Format { bits: 8, mantissa: 3, least: -6, most: 448.0, infinity: false, nan: 0x7f };
pub(crate) const E5M2: Format =
    Format { bits: 8, mantissa: 2, least: -14, most: 57344.0, infinity: true, nan: 0x7f };

/// Direction of rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// To nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
    /// To nearest, ties away from zero.
    Away,
}

impl Round {
    /// The integer that `x` rounds to.
    pub fn integer(self, x: f64) -> f64 {
        match self {
            Self::Nearest => x.round_ties_even(),
            Self::Zero => x.trunc(),
            Self::Down => x.floor(),
            Self::Up => x.ceil(),
            Self::Away => x.round(),
        }
    }

    /// Whether an overflow of this sign stops at the largest finite number.
    fn stops(self, negative: bool) -> bool {
        match self {
            Self::Nearest | Self::Away => false,
            Self::Zero => true,
            Self::Down => !negative,
            Self::Up => negative,
        }
    }
}

/// The bits that `x` rounds to; `finite` clamps what overflows, infinities included, to the largest number.
pub(crate) fn encode(x: f64, format: Format, round: Round, finite: bool) -> u64 {
    if x.is_nan() {
        return format.nan;
    }
    let sign = u64::from(x.is_sign_negative()) << (format.bits - 1);
    let exponent = (exponent(x)).max(format.least);
    let quantum = power(exponent - format.mantissa as i32);
    let rounded = if x.is_infinite() { x } else { round.integer(x / quantum) * quantum };
    let overflows = rounded.abs() > format.most;
    if overflows && !finite && format.infinity && (x.is_infinite() || !round.stops(x < 0.0)) {
        return sign | infinity(format);
    }
    if overflows && !finite && !format.infinity {
        return sign | format.nan;
    }
    sign | magnitude(if overflows { format.most } else { rounded.abs() }, format)
}

/// Bits of a magnitude that the format represents.
fn magnitude(x: f64, format: Format) -> u64 {
    let exponent = exponent(x).max(format.least);
    let significand = (x / power(exponent - format.mantissa as i32)) as u64;
    // The implicit bit of a normal number carries into the exponent.
    (((exponent - format.least) as u64) << format.mantissa) + significand
}

fn infinity(format: Format) -> u64 {
    let exponents = (1 << (format.bits - 1 - format.mantissa)) - 1;
    exponents << format.mantissa
}

/// The value of the bits.
pub(crate) fn decode(bits: u64, format: Format) -> f64 {
    let body = bits & ((1 << (format.bits - 1)) - 1);
    let negative = bits >> (format.bits - 1) & 1 == 1;
    let (exponent, fraction) = (body >> format.mantissa, body & ((1 << format.mantissa) - 1));
    let value = if format.infinity && body >= infinity(format) {
        if fraction == 0 { f64::INFINITY } else { f64::NAN }
    } else if !format.infinity && body == format.nan {
        f64::NAN
    } else if exponent == 0 {
        fraction as f64 * power(format.least - format.mantissa as i32)
    } else {
        let significand = fraction + (1 << format.mantissa);
        significand as f64 * power(exponent as i32 - 1 + format.least - format.mantissa as i32)
    };
    if negative { -value } else { value }
}

/// `floor(log2 |x|)` of a normal number; a subnormal f64 or zero gives a value below every format's range.
fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

/// `2^e` for the exponents of normal f64 numbers.
fn power(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// `a·b + c` with enough bits left to round once more to 24 bits or fewer as if it were exact (round to odd). The
/// product of the factors must be exact in f64.
pub(crate) fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    let high = sum - product;
    odd(sum, (product - (sum - high)) + (c - high))
}

/// The f64 beside the exact `x + error` whose last bit is odd, or `x` where that is exact.
pub(crate) fn odd(x: f64, error: f64) -> f64 {
    if error == 0.0 || !error.is_finite() || x.to_bits() & 1 == 1 {
        return x;
    }
    let away = (error > 0.0) == (x > 0.0);
    f64::from_bits(if away { x.to_bits() + 1 } else { x.to_bits() - 1 })
}

/// Values of all bytes of an 8-bit format.
fn table(format: Format) -> [f64; 256] {
    std::array::from_fn(|i| decode(i as u64, format))
}

static E4M3_VALUES: LazyLock<[f64; 256]> = LazyLock::new(|| table(E4M3));
static E5M2_VALUES: LazyLock<[f64; 256]> = LazyLock::new(|| table(E5M2));

/// Appends the values of packed elements.
pub(crate) fn values(bytes: &[u8], element: Element, into: &mut Vec<f64>) {
    let bf16 = |b: &[u8]| f64::from(f32::from_bits((pair(b) as u32) << 16));
    let mut look_up = |table: &[f64; 256]| into.extend(bytes.iter().map(|b| table[*b as usize]));
    match element {
        Element::E4m3 => look_up(&E4M3_VALUES),
        Element::E5m2 => look_up(&E5M2_VALUES),
        Element::Bf16 => into.extend(bytes.chunks_exact(2).map(bf16)),
        Element::F16 => into.extend(bytes.chunks_exact(2).map(|b| decode(pair(b), F16))),
    }
}

fn pair(bytes: &[u8]) -> u64 {
    u16::from_le_bytes([bytes[0], bytes[1]]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn e4m3_table_has_the_values_of_the_format() {
        assert_eq!(E4M3_VALUES[0x01], 0.001953125);
        assert_eq!(E4M3_VALUES[0x08], 0.015625);
        assert_eq!(E4M3_VALUES[0x38], 1.0);
        assert_eq!(E4M3_VALUES[0x7e], 448.0);
        assert_eq!(E4M3_VALUES[0xb9], -1.125);
        assert!(E4M3_VALUES[0x7f].is_nan() && E4M3_VALUES[0xff].is_nan());
    }

    #[test]
    fn e4m3_rounds_to_even_and_saturates() {
        for (x, bits) in
            [(0.0, 0), (1.0625, 0x38), (1.1875, 0x3a), (464.0, 0x7e), (1e9, 0x7e), (-0.0009765625, 0x80)]
        {
            assert_eq!(encode(x, E4M3, Round::Nearest, true), bits, "{x}");
        }
        assert_eq!(encode(0.00098, E4M3, Round::Nearest, true), 1);
    }

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for format in [E4M3, E5M2, F16, BF16] {
            for bits in 0..1 << format.bits {
                let value = decode(bits, format);
                if !value.is_nan() {
                    assert_eq!(encode(value, format, Round::Nearest, false), bits);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn rounding_agrees_with_half(x: f32) {
            prop_assume!(!x.is_nan());
            let f16 = u64::from(half::f16::from_f32(x).to_bits());
            prop_assert_eq!(encode(x.into(), F16, Round::Nearest, false), f16);
            let bf16 = u64::from(half::bf16::from_f32(x).to_bits());
            prop_assert_eq!(encode(x.into(), BF16, Round::Nearest, false), bf16);
        }

        #[test]
        fn rounding_to_odd_first_gives_fused_arithmetic(a: f32, b: f32, c: f32) {
            let want = a.mul_add(b, c);
            prop_assume!(!want.is_nan());
            let got = encode(fma_odd(a.into(), b.into(), c.into()), F32, Round::Nearest, false);
            prop_assert_eq!(got, u64::from(want.to_bits()));
        }

        #[test]
        fn directed_rounding_brackets(a: f32, b: f32) {
            let exact = f64::from(a) * f64::from(b);
            prop_assume!(exact.is_finite());
            let at = |round| f64::from(f32::from_bits(encode(exact, F32, round, false) as u32));
            prop_assert!(at(Round::Down) <= exact && exact <= at(Round::Up));
            prop_assert!(at(Round::Zero).abs() <= exact.abs());
        }
    }
}
