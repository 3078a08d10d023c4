//! The quantizers of the numeric contract: numbers to codes and scales, and back. Shared by interpreter and compiler.

use rayon::prelude::*;

use crate::fit::extreme;
use crate::{DType, Fit, Format, Level, e4m3};

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

impl Quantized {
    /// Quantizes rows of `cols` numbers (section 2 for two levels, sections 3 and 6 for one). Rows are independent and
    /// run in parallel; the result does not depend on the number of threads.
    pub fn from_rows(x: &[f32], cols: usize, format: &Format, fit: Fit) -> Self {
        let cols = cols.max(1);
        let counts: Vec<usize> = format.scheme.0.iter().map(|l| l.count(cols)).collect();
        let rows: Vec<(Vec<i8>, Vec<Vec<f32>>)> =
            x.par_chunks(cols).map(|row| quantize_row(row, format, fit)).collect();
        let mut codes = Vec::with_capacity(x.len());
        let mut scales: Vec<Vec<f32>> = counts.iter().map(|n| Vec::with_capacity(n * rows.len())).collect();
        for (row_codes, row_scales) in rows {
            codes.extend(row_codes);
            scales.iter_mut().zip(row_scales).for_each(|(all, row)| all.extend(row));
        }
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

fn quantize_row(row: &[f32], format: &Format, fit: Fit) -> (Vec<i8>, Vec<Vec<f32>>) {
    let levels = &format.scheme.0;
    if levels.len() == 1 {
        let (codes, scales) = quantize_groups(row, format.dtype, levels[0], fit);
        return (codes, vec![scales]);
    }
    let outer = outer_scale(row, fit);
    let scaled: Vec<f32> = row.iter().map(|w| w / outer).collect();
    let (codes, scales) = quantize_groups(&scaled, format.dtype, levels[0], fit);
    (codes, vec![scales, vec![outer]])
}

/// The outer scale of a weight row: puts the row's largest group scale at [`WEIGHT_SCALE_TOP`]; 1 for a zero row.
fn outer_scale(row: &[f32], fit: Fit) -> f32 {
    let outer = extreme(row).abs() / (fit.top() * WEIGHT_SCALE_TOP);
    if outer >= f32::MIN_POSITIVE { outer } else { 1.0 }
}

fn quantize_groups(row: &[f32], dtype: DType, level: Level, fit: Fit) -> (Vec<i8>, Vec<f32>) {
    let mut codes = Vec::with_capacity(row.len());
    let mut scales = Vec::with_capacity(level.count(row.len()));
    for group in row.chunks(level.extent(row.len())) {
        if dtype == DType::I4 {
            let scale = fit.scale(group, level.dtype);
            scales.push(scale);
            codes.extend(group.iter().map(|x| nearest_i4(*x, scale)));
        } else {
            let scale = e4m3_scale(group, level.dtype);
            scales.push(scale);
            codes.extend(group.iter().map(|x| e4m3::encode(e4m3::round(x / scale)) as i8));
        }
    }
    (codes, scales)
}

/// absmax/448 as its dtype stores it; 1 for all zeros, so that nothing is divided by zero.
fn e4m3_scale(group: &[f32], dtype: DType) -> f32 {
    let scale = round_scale(extreme(group).abs() / e4m3::MAX, dtype);
    if scale > 0.0 { scale } else { 1.0 }
}

/// The nearest integer code, ties to even. A scale that rounded to zero has only zeros under it.
pub(crate) fn nearest_i4(x: f32, scale: f32) -> i8 {
    // Adding one and a half times 2²³ leaves f32 no bits below 1; not a call where processors have no instruction for it.
    const WHOLE: f32 = 12_582_912.0;
    if scale == 0.0 { 0 } else { (((x / scale).clamp(-8.0, 7.0) + WHOLE) - WHOLE) as i8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|i| ((i * i + 7 * i) as f32 * 0.37).sin() * scale).collect()
    }

    fn error(x: &[f32], y: &[f32]) -> f32 {
        let num: f32 = x.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum();
        (num / x.iter().map(|a| a * a).sum::<f32>()).sqrt()
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
