//! The outer scales of rows, under which E4M3 scales of groups neither underflow nor saturate.

use fireq_ir::e4m3;
use fireq_ir::quant::WEIGHT_SCALE_TOP;
use rayon::prelude::*;

use super::{Method, Outer};

/// The most doublings of a whole tensor.
const DOUBLINGS: i32 = 14;

/// One outer scale per row of `w`.
///
/// [`Outer::Row`] puts the row's largest group scale at [`WEIGHT_SCALE_TOP`]: exact table entries for the group that
/// sets it, and room for compensation to make weights 1.75 times as large before ±448 clips them.
pub(super) fn outer_scales(w: &[f32], cols: usize, group: usize, method: &Method) -> Vec<f32> {
    match method.outer {
        Outer::Row => {
            let levels = if method.signed { 8.0 } else { 7.0 };
            w.par_chunks(cols).map(|row| positive(absmax(row) / (levels * WEIGHT_SCALE_TOP))).collect()
        }
        Outer::Tensor => vec![1.0 / power(w, cols, group); w.len() / cols],
    }
}

/// How many groups that are not zero have scales too small for E4M3 under these outer scales.
pub(super) fn underflows(w: &[f32], cols: usize, group: usize, outer: &[f32]) -> usize {
    let row = |(row, c): (&[f32], &f32)| row.chunks(group).filter(|g| underflow(absmax(g) / c)).count();
    w.par_chunks(cols).zip(outer).map(row).sum()
}

fn underflow(absmax: f32) -> bool {
    absmax > 0.0 && absmax / 7.0 < e4m3::MIN_SUBNORMAL
}

/// The smallest power of two at which no group underflows, else the largest, of those that keep every group inside ±448.
fn power(w: &[f32], cols: usize, group: usize) -> f32 {
    let groups = w.par_chunks(cols).flat_map_iter(|row| row.chunks(group)).map(absmax);
    let positive = groups.filter(|m| *m > 0.0).map(|m| (m, m));
    let range = positive.reduce_with(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let Some((smallest, largest)) = range else { return 1.0 };
    let fits = |p: &f32| largest * p <= e4m3::MAX;
    let powers = || (0..=DOUBLINGS).map(|i| 2.0f32.powi(i)).filter(fits);
    powers().find(|p| !underflow(smallest * p)).or(powers().next_back()).unwrap_or(1.0)
}

/// 1 for a row of zeros, or of what is not finite.
fn positive(outer: f32) -> f32 {
    if outer >= f32::MIN_POSITIVE && outer.is_finite() { outer } else { 1.0 }
}

fn absmax(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |m, v| m.max(v.abs()))
}
