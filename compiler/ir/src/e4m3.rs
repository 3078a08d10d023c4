//! FP8 E4M3 as the numeric contract uses it: finite, round to nearest even, saturating at ±448.

/// The largest finite E4M3 value.
pub const MAX: f32 = 448.0;
/// The smallest normal E4M3 value, 2⁻⁶.
pub const MIN_NORMAL: f32 = 0.015625;
/// The smallest subnormal E4M3 value, 2⁻⁹.
pub const MIN_SUBNORMAL: f32 = 0.001953125;

/// `rn8`: rounds to the nearest E4M3 value, ties to even, saturating at ±448. NaN stays NaN.
///
/// Source: FireQ's contract, section "Notation"; OCP 8-bit floating point specification.
#[inline]
pub fn round(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let magnitude = x.abs().min(MAX);
    let exponent = magnitude.max(MIN_NORMAL).to_bits() & 0x7f80_0000;
    // One and a half times 2²³ quanta, an eighth of the exponent's power each: adding it leaves f32 no bits below a quantum.
    let whole = f32::from_bits((exponent + (20 << 23)) | (1 << 22));
    ((magnitude + whole) - whole).copysign(x)
}

/// The byte of an E4M3 value: `round(x)` must equal `x`. Sign, four exponent bits (bias 7), three mantissa bits.
#[inline]
pub fn encode(x: f32) -> u8 {
    // Behind 2¹⁴ the lowest bits of f32 count the smallest subnormal.
    const BEHIND: f32 = MIN_SUBNORMAL * (1 << 23) as f32;
    let (sign, magnitude) = ((x.to_bits() >> 24) as u8 & 0x80, x.abs());
    let normal = (magnitude.to_bits() >> 20) as u8;
    let subnormal = (magnitude + BEHIND).to_bits() as u8;
    sign | if magnitude < MIN_NORMAL { subnormal } else { normal.wrapping_sub((120u32 << 3) as u8) }
}

/// The value of an E4M3 byte. The two NaN bytes, 0x7f and 0xff, decode to NaN.
#[inline]
pub fn decode(byte: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(byte >> 3 & 15), u32::from(byte & 7));
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, m) => m as f32 * MIN_SUBNORMAL,
        (e, m) => f32::from_bits((e + 120) << 23 | m << 20),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finite_bytes() -> impl Iterator<Item = u8> {
        (0..=255).filter(|b| b & 0x7f != 0x7f)
    }

    #[test]
    fn rounding_is_that_of_quanta() {
        let by_division = |x: f32| {
            let magnitude = x.abs().min(MAX);
            let exponent = magnitude.max(MIN_NORMAL).log2().floor().exp2();
            let quantum = exponent / 8.0;
            ((magnitude / quantum).round_ties_even() * quantum).copysign(x)
        };
        for bits in (0..0x7f80_0000u32).step_by(4093).chain((0..0x7f80_0000 >> 16).map(|n| n << 16)) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                assert_eq!(round(x).to_bits(), by_division(x).to_bits(), "{x:e}");
            }
        }
    }

    #[test]
    fn every_byte_round_trips() {
        for byte in finite_bytes() {
            let value = decode(byte);
            assert_eq!(round(value), value);
            assert_eq!(encode(value), byte);
        }
    }

    #[test]
    fn rounds_to_the_nearest_with_ties_to_the_even_byte() {
        let values: Vec<f32> = (0..0x7f).map(decode).collect();
        for (low, pair) in values.windows(2).enumerate() {
            let middle = f32::midpoint(pair[0], pair[1]);
            assert_eq!(round(middle), pair[low % 2], "tie between {pair:?}");
            assert_eq!(round(middle.next_down()), pair[0]);
            assert_eq!(round(middle.next_up()), pair[1]);
        }
    }

    #[test]
    fn saturates_and_keeps_signs() {
        assert_eq!(round(1e9), 448.0);
        assert_eq!(round(f32::NEG_INFINITY), -448.0);
        assert!(round(-0.0).is_sign_negative());
        assert!(round(f32::NAN).is_nan());
        assert_eq!(round(1e-40), 0.0);
    }
}
