//! The quantizers of the numeric contract: numbers to codes and scales, and back. Shared by interpreter and compiler.

use rayon::prelude::*;

use crate::fit::largest;
use crate::{DType, Fit, Format, e4m3};

/// The largest magnitude of a scale of a weight row in units of its outer scale. A power of two: the group that sets it
/// keeps every table entry exact, and 8·32 stays far below the largest E4M3 value.
pub const WEIGHT_SCALE_TOP: f32 = 32.0;

/// Codes and scales of a matrix. Scales are the values that were stored, already rounded to their dtype.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Number format.
    pub format: Format,
    /// Elements per row.
    pub cols: usize,
    /// I4 codes as −8..7; E4M3 codes as the byte reinterpreted.
    pub codes: Vec<i8>,
    /// One vector per level, innermost first: `rows × level.count(cols)`.
    pub scales: Vec<Vec<f32>>,
}

/// Numbers that one task quantizes or packs: they stay in a core's cache, and are worth a task.
pub(crate) const PIECE: usize = 1 << 17;

impl Quantized {
    /// Quantizes rows of `cols` numbers (section 2 for two levels, sections 3 and 6 for one). Rows are independent, and many
    /// run in parallel; the result does not depend on the number of threads.
    pub fn from_rows(x: &[f32], cols: usize, format: &Format, fit: Fit) -> Self {
        let (cols, levels) = (cols.max(1), &format.scheme.0);
        let (rows, count) = (x.len().div_ceil(cols), levels[0].count(cols));
        let (mut codes, mut inner, mut outer) = (vec![0; x.len()], vec![0.0; rows * count], vec![1.0; rows]);
        let piece = (PIECE / cols).max(1);
        if rows <= piece {
            Rows { cols, x, codes: &mut codes, inner: &mut inner, outer: &mut outer }.quantize(format, fit);
        } else {
            let scales = inner.par_chunks_mut(piece * count).zip(outer.par_chunks_mut(piece));
            let numbers = x.par_chunks(piece * cols).zip(codes.par_chunks_mut(piece * cols));
            numbers.zip(scales).for_each(|((x, codes), (inner, outer))| {
                Rows { cols, x, codes, inner, outer }.quantize(format, fit);
            });
        }
        let scales = [inner, outer].into_iter().take(levels.len()).collect();
        Quantized { format: format.clone(), cols, codes, scales }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.codes.len() / self.cols
    }

    /// The elements of a row before the row's outer factor: `rn8(q·σ)` for I4 under E4M3, `x8` for E4M3 codes under a
    /// row scale, else the full value. With [`Quantized::row_factor`] this is how kernels split mainloop and epilogue.
    pub fn mainloop_row(&self, row: usize) -> Vec<f32> {
        let inner = self.format.scheme.0[0];
        let (extent, count) = (inner.extent(self.cols), inner.count(self.cols));
        let per_row_factor =
            self.format.scheme.0.len() == 1 && count == 1 && self.format.dtype == DType::E4M3;
        let codes = &self.codes[row * self.cols..][..self.cols];
        let scales = &self.scales[0][row * count..][..count];
        let value = |(i, code): (usize, &i8)| {
            let scale = if per_row_factor { 1.0 } else { scales[i / extent] };
            element(*code, scale, self.format.dtype, inner.dtype)
        };
        codes.iter().enumerate().map(value).collect()
    }

    /// What multiplies a row in the epilogue: the outer scale, or the only scale of E4M3 codes; 1 without one.
    pub fn row_factor(&self, row: usize) -> f32 {
        let levels = &self.format.scheme.0;
        match levels.as_slice() {
            [_, _] => self.scales[1][row],
            [one] if self.format.dtype == DType::E4M3 && one.count(self.cols) == 1 => self.scales[0][row],
            _ => 1.0,
        }
    }

    /// The numbers that a row stands for.
    pub fn dequantize_row(&self, row: usize) -> Vec<f32> {
        let factor = self.row_factor(row);
        self.mainloop_row(row).into_iter().map(|v| v * factor).collect()
    }

    /// The numbers that the matrix stands for.
    pub fn dequantize(&self) -> Vec<f32> {
        (0..self.rows()).flat_map(|row| self.dequantize_row(row)).collect()
    }
}

/// The number behind a code under a scale: the table entry `rn8(q·σ)` for I4 under E4M3 (section 2).
pub fn element(code: i8, scale: f32, dtype: DType, scale_dtype: DType) -> f32 {
    match (dtype, scale_dtype) {
        (DType::I4, DType::E4M3) => e4m3::round(f32::from(code) * scale),
        (DType::I4, _) => f32::from(code) * scale,
        _ => e4m3::decode(code as u8) * scale,
    }
}

/// The nearest scale that its dtype can store.
pub fn round_scale(scale: f32, dtype: DType) -> f32 {
    match dtype {
        DType::E4M3 => e4m3::round(scale),
        DType::BF16 => half::bf16::from_f32(scale).to_f32(),
        _ => scale,
    }
}

/// Rows of numbers, and where their codes and scales go.
struct Rows<'a> {
    cols: usize,
    x: &'a [f32],
    codes: &'a mut [i8],
    /// Scales of the innermost level, row by row.
    inner: &'a mut [f32],
    /// One for each row.
    outer: &'a mut [f32],
}

impl Rows<'_> {
    /// Finds codes and scales. Every machine gets the same bits, some of them sooner.
    fn quantize(self, format: &Format, fit: Fit) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: this machine has what the function was compiled for.
            return unsafe { self.quantize_avx2(format, fit) };
        }
        self.quantize_each(format, fit);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn quantize_avx2(self, format: &Format, fit: Fit) {
        self.quantize_each(format, fit);
    }

    #[expect(clippy::inline_always, reason = "compiled for the vectors of each caller")]
    #[inline(always)]
    fn quantize_each(self, format: &Format, fit: Fit) {
        let (level, scaled) = (format.scheme.0[0], format.scheme.0.len() == 2);
        let mut units = vec![0.0; if scaled { self.cols } else { 0 }];
        let numbers = self.x.chunks(self.cols).zip(self.codes.chunks_mut(self.cols));
        let scales = self.inner.chunks_mut(level.count(self.cols)).zip(self.outer);
        for ((row, codes), (inner, outer)) in numbers.zip(scales) {
            let mut numbers = row;
            if scaled {
                *outer = outer_scale(row, fit);
                units.iter_mut().zip(row).for_each(|(unit, x)| *unit = x / *outer);
                numbers = &units[..row.len()];
            }
            let extent = level.extent(row.len());
            for ((group, codes), scale) in numbers.chunks(extent).zip(codes.chunks_mut(extent)).zip(inner) {
                *scale = quantize_group(group, format.dtype, level.dtype, fit, codes);
            }
        }
    }
}

/// The outer scale of a weight row: puts the row's largest group scale at [`WEIGHT_SCALE_TOP`]; 1 for a zero row.
#[expect(clippy::inline_always, reason = "compiled for the vectors of each caller")]
#[inline(always)]
fn outer_scale(row: &[f32], fit: Fit) -> f32 {
    let outer = largest(row) / (fit.top() * WEIGHT_SCALE_TOP);
    if outer >= f32::MIN_POSITIVE { outer } else { 1.0 }
}

/// Fills in the codes of a group and returns its scale.
#[expect(clippy::inline_always, reason = "compiled for the vectors of each caller")]
#[inline(always)]
fn quantize_group(group: &[f32], dtype: DType, stored: DType, fit: Fit, codes: &mut [i8]) -> f32 {
    if dtype == DType::I4 {
        let scale = fit.scale(group, stored);
        codes.iter_mut().zip(group).for_each(|(code, x)| *code = nearest_i4(*x, scale));
        scale
    } else {
        let scale = e4m3_scale(group, stored);
        let code = |x: f32| e4m3::encode(e4m3::round(x / scale)) as i8;
        codes.iter_mut().zip(group).for_each(|(to, x)| *to = code(*x));
        scale
    }
}

/// absmax/448 as its dtype stores it; 1 for all zeros, so that nothing is divided by zero.
#[expect(clippy::inline_always, reason = "compiled for the vectors of each caller")]
#[inline(always)]
fn e4m3_scale(group: &[f32], dtype: DType) -> f32 {
    let scale = round_scale(largest(group) / e4m3::MAX, dtype);
    if scale > 0.0 { scale } else { 1.0 }
}

/// The nearest integer code, ties to even. A scale that rounded to zero has only zeros under it.
#[inline]
pub(crate) fn nearest_i4(x: f32, scale: f32) -> i8 {
    // Adding one and a half times 2²³ leaves f32 no bits below 1, and the code in the lowest ones; not a call where
    // processors have no instruction for it, and many at a time where they have vectors.
    const WHOLE: f32 = 12_582_912.0;
    if scale == 0.0 { 0 } else { ((x / scale).clamp(-8.0, 7.0) + WHOLE).to_bits() as i8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::FITS;

    fn wave(n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|i| ((i * i + 7 * i) as f32 * 0.37).sin() * scale).collect()
    }

    fn error(x: &[f32], y: &[f32]) -> f32 {
        let num: f32 = x.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum();
        (num / x.iter().map(|a| a * a).sum::<f32>()).sqrt()
    }

    #[test]
    fn wider_vectors_and_more_tasks_give_the_same_bits() {
        let formats = [Format::weight(128), Format::weight(32), Format::kv(64), Format::activation()];
        let cases = formats.iter().flat_map(|format| FITS.map(|fit| (format, fit)));
        for ((format, fit), cols) in cases.flat_map(|case| [200, 256].map(|cols| (case, cols))) {
            let mut x = wave(2 * PIECE, 0.1);
            x.truncate(x.len() / cols * cols);
            x[..cols].fill(-0.0);
            (x[cols + 3], x[cols + 4]) = (-0.5, 0.5);
            let found = Quantized::from_rows(&x, cols, format, fit);
            let (mut codes, mut outer) = (vec![0; x.len()], vec![1.0; x.len() / cols]);
            let mut inner = vec![0.0; found.scales[0].len()];
            let rows = Rows { cols, x: &x, codes: &mut codes, inner: &mut inner, outer: &mut outer };
            rows.quantize_each(format, fit);
            let bits = |scales: &[f32]| scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
            assert!(codes == found.codes && bits(&inner) == bits(&found.scales[0]), "{format} {fit}");
            assert!(found.scales.get(1).is_none_or(|scales| bits(scales) == bits(&outer)), "{format} {fit}");
        }
    }

    #[test]
    fn codes_are_the_nearest_integers() {
        for x in (-4000..4000).map(|i| i as f32 / 256.0).chain([1e30, -1e30, f32::INFINITY, -0.0]) {
            for scale in [1.0f32, -0.75, 0.375, 448.0] {
                let expected = (x / scale).clamp(-8.0, 7.0).round_ties_even() as i8;
                assert_eq!(nearest_i4(x, scale), expected, "{x} / {scale}");
            }
            assert_eq!(nearest_i4(x, 0.0), 0);
        }
    }

    #[test]
    fn small_weights_do_not_underflow() {
        for scale in [1.0, 1e-3, 1e-6, 1e4] {
            let x = wave(4 * 256, scale);
            let q = Quantized::from_rows(&x, 256, &Format::weight(128), Fit::Absmax);
            assert!(error(&x, &q.dequantize()) < 0.12, "scale {scale}");
        }
    }

    #[test]
    fn the_group_that_sets_the_outer_scale_is_exact_at_its_extremes() {
        let x: Vec<f32> = (0..128).map(|i| 0.001 * (i % 15) as f32 - 0.007).collect();
        let q = Quantized::from_rows(&x, 128, &Format::weight(128), Fit::Absmax);
        assert_eq!(q.scales[0], [WEIGHT_SCALE_TOP]);
        assert!(error(&x, &q.dequantize()) < 1e-6);
    }

    #[test]
    fn zero_rows_give_zero_codes_and_finite_scales() {
        for format in [Format::weight(128), Format::activation(), Format::kv(64), Format::query(64)] {
            let q = Quantized::from_rows(&[0.0; 128], 128, &format, Fit::Absmax);
            assert!(q.dequantize().iter().all(|v| *v == 0.0), "{format}");
            assert!(q.scales.iter().flatten().all(|s| s.is_finite()));
        }
    }

    #[test]
    fn a_short_last_group_has_its_own_scale() {
        let x = wave(2 * 200, 0.1);
        let q = Quantized::from_rows(&x, 200, &Format::weight(128), Fit::Absmax);
        assert_eq!(q.scales[0].len(), 4);
        assert!(error(&x, &q.dequantize()) < 0.12);
    }

    #[test]
    fn activations_reach_the_top_of_the_range() {
        let q = Quantized::from_rows(&[0.5, -2.0, 1.0, 0.25], 4, &Format::activation(), Fit::Absmax);
        assert_eq!(q.scales[0], [2.0 / 448.0]);
        assert_eq!(q.mainloop_row(0), [112.0, -448.0, 224.0, 56.0]);
    }
}
