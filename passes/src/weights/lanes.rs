//! Rounding of weights, as arithmetic without branches on several rows at once: what compilers turn into vectors.
#![expect(clippy::inline_always, reason = "the caller decides for which vectors these are compiled")]

use fireq_ir::e4m3;

use super::Rounding;

/// Rows that are worked on together.
pub(super) const LANES: usize = 16;

/// One number of each of those rows.
pub(super) type Lane = [f32; LANES];

/// 1.5·2²³: adding and subtracting it rounds numbers below 2²² to integers, ties to even.
const TO_INTEGER: f32 = 12_582_912.0;

/// The code of a weight under a scale, and the table entry behind it.
///
/// An entry is off its product by a twenty-first at most, so the nearest one belongs to the nearest integer or to its
/// neighbour on the side where the weight is.
#[inline(always)]
pub(super) fn round(weight: f32, scale: f32, rounding: Rounding) -> (f32, f32) {
    let code = nearest_integer(weight, scale);
    let value = rn8(code * scale);
    let rest = weight - value;
    let step = if (rest < 0.0) == (scale < 0.0) { 1.0 } else { -1.0 };
    let other = least(most(code + step, -8.0), 7.0);
    let other_value = rn8(other * scale);
    let better = (rounding == Rounding::Entry) & ((weight - other_value).abs() < rest.abs());
    (if better { other } else { code }, if better { other_value } else { value })
}

/// A scale of zero has only zeros under it: it divides like infinity.
#[inline(always)]
fn nearest_integer(weight: f32, scale: f32) -> f32 {
    let scale = if scale == 0.0 { f32::INFINITY } else { scale };
    (least(most(weight / scale, -8.0), 7.0) + TO_INTEGER) - TO_INTEGER
}

/// [`e4m3::round`] of a finite number, but for the sign of zero.
#[inline(always)]
pub(super) fn rn8(x: f32) -> f32 {
    let power = f32::from_bits(x.to_bits() & 0x7f80_0000);
    // Three bits of mantissa stay: the quantum is an eighth of the power of two, but never less than that of subnormals.
    let to_quantum = most(power, e4m3::MIN_NORMAL) * (TO_INTEGER / 8.0);
    least(most((x + to_quantum) - to_quantum, -e4m3::MAX), e4m3::MAX)
}

/// The smaller one, `b` if they cannot be compared: one instruction, which `f32::min` is not.
#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The larger one, `b` if they cannot be compared.
#[inline(always)]
fn most(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use fireq_ir::DType;
    use fireq_ir::quant::element;

    use super::*;

    fn scales() -> impl Iterator<Item = f32> {
        (0..=255).filter(|b| b & 0x7f != 0x7f).map(e4m3::decode)
    }

    fn table(scale: f32) -> [f32; 16] {
        std::array::from_fn(|i| element(i as i8 - 8, scale, DType::I4, DType::E4M3))
    }

    #[test]
    fn every_entry_is_that_of_the_contract() {
        for scale in scales() {
            for (code, entry) in (-8i8..).zip(table(scale)) {
                assert_eq!(rn8(f32::from(code) * scale), entry, "{code} under {scale}");
            }
        }
        assert_eq!(rn8(1e9), e4m3::MAX);
    }

    #[test]
    fn no_entry_is_nearer_than_the_one_found() {
        for scale in scales().filter(|s| *s != 0.0) {
            let table = table(scale);
            for step in -900i16..900 {
                let weight = f32::from(step) * 0.01 * scale;
                let (code, value) = round(weight, scale, Rounding::Entry);
                let least = table.map(|entry| (weight - entry).abs()).into_iter().fold(f32::MAX, f32::min);
                assert_eq!((weight - value).abs(), least, "{weight} under {scale}");
                assert_eq!(table[(code + 8.0) as usize], value);
            }
        }
    }
}
