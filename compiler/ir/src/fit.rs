//! How a group of numbers gets its I4 codes and their scale: the quantizers that differ in what they choose, and agree
//! in how it is read.

use std::fmt;
use std::str::FromStr;

use crate::quant::{element, nearest_i4, round_scale};
use crate::text::nearest;
use crate::{Attr, Attribute, DType};

/// How the scale of I4 codes is chosen (FireQ sections 2 and 6). Codes are the nearest integers in units of the scale,
/// ties to even, clamped to −8..7; E4M3 codes have one way only, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fit {
    /// σ = absmax/7: numbers of either sign reach their extreme, and the code −8 is never used.
    #[default]
    Absmax,
    /// σ = −m/8 for `m` the first element of largest magnitude: the scale has a sign, and m is the code −8.
    Signed,
    /// σ = −m/8 · r for the first of [`CLIP_RATIOS`] that gives the group the least squared error.
    Clipped,
}

/// Every fit, in the order of their quality.
pub const FITS: [Fit; 3] = [Fit::Absmax, Fit::Signed, Fit::Clipped];

/// What [`Fit::Clipped`] multiplies a signed scale with, in the order in which they are tried.
pub const CLIP_RATIOS: [f32; 4] = [1.0, 0.93, 0.87, 0.8];

impl Fit {
    /// The name in text IR and in options of passes.
    pub const fn name(self) -> &'static str {
        match self {
            Fit::Absmax => "absmax",
            Fit::Signed => "signed",
            Fit::Clipped => "clipped",
        }
    }

    /// The largest magnitude of a code that a group's extreme is meant to get.
    pub(crate) const fn top(self) -> f32 {
        match self {
            Fit::Absmax => 7.0,
            Fit::Signed | Fit::Clipped => 8.0,
        }
    }

    /// The scale for a group of I4 codes, as `dtype` stores it.
    #[expect(clippy::inline_always, reason = "compiled for the vectors of each caller")]
    #[inline(always)]
    pub(crate) fn scale(self, group: &[f32], dtype: DType) -> f32 {
        match self {
            Fit::Absmax => round_scale(largest(group) / self.top(), dtype),
            Fit::Signed => signed_scale(extreme(group), 1.0, dtype),
            Fit::Clipped => clipped_scale(group, extreme(group), dtype),
        }
    }
}

/// The largest magnitude; 0 without elements. What is not a number is passed over.
#[inline(always)]
pub(crate) fn largest(group: &[f32]) -> f32 {
    // Independent chains, which vectors hold and processors overlap, and then their halves.
    const CHAINS: usize = 32;
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = group.as_chunks::<CHAINS>();
    let mut tops = [0.0f32; CHAINS];
    for chunk in chunks {
        tops.iter_mut().zip(chunk).for_each(|(top, x)| *top = larger(*top, x.abs()));
    }
    tops.iter_mut().zip(rest).for_each(|(top, x)| *top = larger(*top, x.abs()));
    let mut half = CHAINS / 2;
    while half > 0 {
        (0..half).for_each(|i| tops[i] = larger(tops[i], tops[i + half]));
        half /= 2;
    }
    tops[0]
}

/// The first element of largest magnitude; 0 without one.
#[expect(clippy::inline_always, reason = "compiled for the vectors of each caller")]
#[inline(always)]
fn extreme(group: &[f32]) -> f32 {
    let top = largest(group);
    if top > 0.0 { group.iter().copied().find(|x| x.abs() == top).unwrap_or(0.0) } else { 0.0 }
}

/// `(m / −8) · ratio`, rounded in this order.
fn signed_scale(extreme: f32, ratio: f32, dtype: DType) -> f32 {
    round_scale(extreme / -Fit::Signed.top() * ratio, dtype)
}

fn clipped_scale(group: &[f32], extreme: f32, dtype: DType) -> f32 {
    let scales = CLIP_RATIOS.map(|ratio| signed_scale(extreme, ratio, dtype));
    let tried = scales.into_iter().map(|scale| (squared_error(group, scale, dtype), scale));
    let best = tried.reduce(|best, next| if next.0 < best.0 { next } else { best });
    best.expect("there are ratios").1
}

/// Σ(x − element)² in f64. The order of the sum is open: it could decide between scales only whose errors are equal to
/// fifteen digits.
fn squared_error(group: &[f32], scale: f32, dtype: DType) -> f64 {
    let elements: [f32; 16] = std::array::from_fn(|n| element(n as i8 - 8, scale, DType::I4, dtype));
    let error = |x: f32| f64::from(x) - f64::from(elements[(nearest_i4(x, scale) + 8) as usize]);
    group.iter().map(|x| error(*x).powi(2)).sum()
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || nearest(text, FITS.map(Fit::name)).map_or_else(String::new, |hint| format!("; {hint}"));
        FITS.into_iter()
            .find(|fit| fit.name() == text)
            .ok_or_else(|| format!("{} is wanted{}", Self::KIND, hint()))
    }
}

impl Attribute for Fit {
    const KIND: &'static str = "`absmax`, `signed` or `clipped`";
    const OMITTED: Option<Self> = Some(Fit::Absmax);
    fn words() -> Vec<&'static str> {
        FITS.map(Fit::name).to_vec()
    }
    fn to_attr(&self) -> Attr {
        Attr::Word(self.name().into())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Word(word) = attr { word.parse().ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;
    use crate::quant::Quantized;

    /// Normal numbers (Box–Muller over a linear congruence), the same on every run.
    fn normal(n: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f64 + 0.5) / f64::from(1 << 24)
        };
        let mut number = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        (0..n).map(|_| number() as f32).collect()
    }

    fn squared_error(x: &[f32], cols: usize, format: &Format, fit: Fit) -> f64 {
        let y = Quantized::from_rows(x, cols, format, fit).dequantize();
        x.iter().zip(&y).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum()
    }

    fn i4_row(dtype: DType) -> Format {
        Format { dtype: DType::I4, scheme: crate::Scheme::row(dtype) }
    }

    #[test]
    fn the_extreme_is_the_first_of_the_largest_wherever_it_stands() {
        for n in [1, 31, 32, 33, 100] {
            for at in 0..n {
                let mut group = vec![0.25f32; n];
                group[n - 1] = 2.0;
                group[at] = -2.0;
                let first = group.iter().copied().find(|x| x.abs() == 2.0).unwrap();
                assert_eq!((largest(&group), extreme(&group)), (2.0, first), "{at} of {n}");
                group[at] = f32::NAN;
                assert_eq!(largest(&group), group.iter().copied().fold(0.0, f32::max));
            }
        }
        assert!(extreme(&[-0.0, -0.0]).is_sign_positive() && extreme(&[]) == 0.0);
    }

    #[test]
    fn each_fit_is_better_than_the_one_before() {
        for (cols, format) in [(64, Format::kv(64)), (128, Format::kv(128)), (256, Format::weight(128))] {
            let x = normal(512 * cols);
            let [absmax, signed, clipped] = FITS.map(|fit| squared_error(&x, cols, &format, fit));
            eprintln!("{format}: signed {:.3}, clipped {:.3} of absmax", signed / absmax, clipped / absmax);
            assert!(signed < 0.9 * absmax, "{format}: {signed} of {absmax}");
            assert!(clipped < 0.85 * absmax, "{format}: {clipped} of {absmax}");
        }
    }

    #[test]
    fn no_row_is_worse_clipped_than_signed() {
        for row in normal(512 * 64).chunks(64) {
            let [signed, clipped] =
                [Fit::Signed, Fit::Clipped].map(|fit| squared_error(row, 64, &Format::kv(64), fit));
            assert!(clipped <= signed, "{clipped} over {signed}: {row:?}");
        }
    }

    #[test]
    fn the_extreme_is_code_minus_eight() {
        for (row, scale) in [([1.0, -4.0, 2.0], 0.5), ([1.0, 4.0, -2.0], -0.5), ([-4.0, 4.0, 0.0], 0.5)] {
            let q = Quantized::from_rows(&row, 3, &i4_row(DType::F32), Fit::Signed);
            assert_eq!(q.scales[0], [scale], "{row:?}");
            let extreme = row.iter().position(|x| x.abs() == 4.0).unwrap();
            assert_eq!(q.codes[extreme], -8, "{row:?}");
            assert_eq!(q.dequantize()[extreme], row[extreme]);
        }
    }

    #[test]
    fn the_group_that_sets_the_outer_scale_has_the_top_scale() {
        let row: Vec<f32> = (0..128).map(|i| 0.001 * (i % 16) as f32 - 0.008).collect();
        let q = Quantized::from_rows(&row, 128, &Format::weight(128), Fit::Signed);
        assert_eq!(q.scales[0], [crate::quant::WEIGHT_SCALE_TOP]);
        assert!(q.dequantize().iter().zip(&row).all(|(y, x)| (y - x).abs() <= 1e-9));
    }

    #[test]
    fn clipping_gives_up_an_outlier_for_the_others() {
        let mut row = [3.2f32; 64];
        row[9] = -4.0;
        let scale = |fit| Quantized::from_rows(&row, 64, &i4_row(DType::F32), fit).scales[0][0];
        assert_eq!(scale(Fit::Signed), 0.5);
        // 3.2 is six and a half units of 0.5, and seven of 0.465 but for 0.055.
        assert_eq!(scale(Fit::Clipped), 0.5 * 0.93);
    }

    #[test]
    fn groups_too_small_for_a_scale_are_zeros() {
        for fit in FITS {
            for row in [[0.0; 4], [1e-4, -1e-5, 0.0, 1e-6]] {
                let q = Quantized::from_rows(&row, 4, &Format::kv(4), fit);
                assert_eq!((&q.codes[..], q.scales[0][0]), (&[0i8; 4][..], 0.0), "{fit}");
            }
        }
    }

    #[test]
    fn e4m3_codes_have_one_fit() {
        let x = normal(256);
        let quantized = FITS.map(|fit| Quantized::from_rows(&x, 64, &Format::query(64), fit));
        assert!(quantized.iter().all(|q| *q == quantized[0]));
    }
}
