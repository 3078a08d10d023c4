//! Cholesky factors, panel by panel, from the last column to the first, and the feedback that they make.

use std::iter::{once, successors};

use rayon::prelude::*;

use super::gemm::{View, add_product};
use super::triangle::{Panel, TILE, Upper};

/// A pivot below this share of its diagonal element is rounding noise: what f32 sums leave of a dependent column.
const NOISE: f64 = 1e-6;

/// By how much damping rises with every attempt at a factor, from what at least, and how many attempts there are.
const RAISE: f32 = 10.0;
const LEAST_RAISED: f32 = 0.01;
const ATTEMPTS: usize = 5;

/// How the errors of channels act on later ones.
pub(super) struct Decomposed {
    /// F.
    pub feedback: Upper,
    /// d.
    pub costs: Vec<f32>,
    /// What was added to the diagonal, in units of its mean.
    pub damping: f32,
}

/// `H + λ = F·diag(d)·Fᵀ` with ones on the diagonal of the upper triangular F, in panels of `widths`; `moments` is the
/// diagonal of H, and λ is `damping` times its mean, or more if that is not enough. None if nothing is.
///
/// Errors e cost `eᵀHe = Σⱼ dⱼ (e·Fⱼ)²`: channel j is best rounded from `wⱼ + Σ_{i<j} eᵢFᵢⱼ`, and costs `dⱼ` times the
/// square of what that is missed by. These are GPTQ's numbers, which it gets from a factor of the inverse of H; this
/// way nothing is inverted, and a quarter of the work is left. A channel without input has no feedback, and costs λ.
pub(super) fn decompose(
    widths: &[usize],
    damping: f32,
    moments: &[f32],
    product: impl Fn(usize, usize) -> f32 + Sync,
) -> Option<Decomposed> {
    let mean = (moments.iter().map(|m| f64::from(*m)).sum::<f64>() / moments.len() as f64) as f32;
    if !(mean > 0.0 && mean.is_finite()) {
        return None;
    }
    let first = damping.max(0.0);
    let raised = successors(Some((first * RAISE).max(LEAST_RAISED)), |d| Some(d * RAISE));
    once(first).chain(raised).take(ATTEMPTS).find_map(|damping| {
        let mut feedback = Upper::zeros(widths.iter().copied());
        feedback.fill(|i, j| product(i, j) + if i == j { damping * mean } else { 0.0 });
        factor(&mut feedback).ok()?;
        let costs = unit_columns(&mut feedback);
        Some(Decomposed { feedback, costs, damping })
    })
}

/// The matrix is not positive definite as far as f32 can tell.
#[derive(Debug, PartialEq, Eq)]
struct NotPositive;

/// Replaces the upper triangle of a symmetric matrix by the upper triangular `R` with `A = R·Rᵀ`.
///
/// Panels are completed one after the other with products over those already done, so each is written once; the blocks
/// on the diagonal are factored in f64.
fn factor(a: &mut Upper) -> Result<(), NotPositive> {
    for index in (0..a.panels.len()).rev() {
        let (earlier, done) = a.panels.split_at_mut(index + 1);
        complete(&mut earlier[index], done)?;
    }
    Ok(())
}

fn complete(panel: &mut Panel, done: &[Panel]) -> Result<(), NotPositive> {
    let (start, width) = (panel.start, panel.width);
    let scale: Vec<f32> = panel.diagonal_block().iter().step_by(width + 1).copied().collect();
    panel.data.par_chunks_mut(TILE * width).enumerate().for_each(|(i, tile)| {
        for p in done {
            let rows = p.rows(i * TILE, tile.len() / width);
            add_product(tile, -1.0, rows, p.rows(start, width).transposed());
        }
    });
    let (above, block) = panel.data.split_at_mut(start * width);
    let inverse = factor_block(block, &scale)?;
    above.par_chunks_mut(TILE * width).for_each(|tile| {
        let before = tile.to_vec();
        tile.fill(0.0);
        let rows = tile.len() / width;
        add_product(
            tile,
            1.0,
            View::new(&before, rows, width, width),
            View::new(&inverse, width, width, width),
        );
    });
    Ok(())
}

/// Factors a block on the diagonal in place and returns the transposed inverse of its factor.
fn factor_block(block: &mut [f32], scale: &[f32]) -> Result<Vec<f32>, NotPositive> {
    let n = scale.len();
    let mut r: Vec<f64> = block.iter().map(|v| f64::from(*v)).collect();
    for j in (0..n).rev() {
        for i in 0..=j {
            let sum = dot(&r[i * n + j + 1..(i + 1) * n], &r[j * n + j + 1..(j + 1) * n]);
            r[i * n + j] -= sum;
        }
        let pivot = r[j * n + j];
        // Also refuses NaN.
        if !(pivot > NOISE * f64::from(scale[j]) && pivot.is_finite()) {
            return Err(NotPositive);
        }
        let root = pivot.sqrt();
        (0..=j).for_each(|i| r[i * n + j] /= root);
    }
    block.iter_mut().zip(&r).for_each(|(to, v)| *to = *v as f32);
    Ok(inverse_transposed(&r, n).into_iter().map(|v| v as f32).collect())
}

/// Row j holds column j of the inverse of the upper triangular `r`.
pub(super) fn inverse_transposed(r: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    for (j, column) in inverse.chunks_exact_mut(n.max(1)).enumerate() {
        column[j] = 1.0 / r[j * n + j];
        for i in (0..j).rev() {
            column[i] = -dot(&r[i * n + i + 1..=i * n + j], &column[i + 1..=j]) / r[i * n + i];
        }
    }
    inverse
}

/// In four sums, for speed.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a4, a_rest) = a.as_chunks::<4>();
    let (b4, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (x, y) in a4.iter().zip(b4) {
        (0..4).for_each(|l| sums[l] += x[l] * y[l]);
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

/// Divides every column of `R` by its diagonal element and returns the squares of those.
fn unit_columns(r: &mut Upper) -> Vec<f32> {
    let roots: Vec<f32> = r.diagonal().collect();
    r.panels.par_iter_mut().for_each(|panel| {
        let roots = &roots[panel.start..][..panel.width];
        for row in panel.data.chunks_exact_mut(panel.width) {
            row.iter_mut().zip(roots).for_each(|(v, root)| *v /= root);
        }
    });
    roots.iter().map(|root| root * root).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Positive definite, its own transpose, and not the same on any two diagonals.
    fn matrix(i: usize, j: usize) -> f32 {
        let wave = |a: usize, b: usize| ((a * b) as f32 * 0.7).sin();
        0.4 * wave(i, j) + if i == j { 40.0 + wave(i, 2) } else { 0.0 }
    }

    #[test]
    fn the_factors_make_the_matrix() {
        let widths = [64, 300, 1, 128];
        let n = widths.iter().sum();
        let moments: Vec<f32> = (0..n).map(|i| matrix(i, i)).collect();
        let found = decompose(&widths, 0.0, &moments, matrix).unwrap();
        let f = |i: usize, j: usize| {
            let panel = found.feedback.panels.iter().find(|p| j < p.start + p.width).unwrap();
            f64::from(panel.data[i * panel.width + j - panel.start])
        };
        for (i, j) in [(0, 0), (0, n - 1), (63, 64), (100, 200), (364, 365), (200, 491), (n - 1, n - 1)] {
            let sum: f64 = (j..n).map(|k| f(i, k) * f64::from(found.costs[k]) * f(j, k)).sum();
            assert!((sum - f64::from(matrix(i, j))).abs() < 1e-3, "{sum} at {i}, {j}");
        }
        assert_eq!(found.damping, 0.0);
    }

    #[test]
    fn damping_rises_until_there_is_a_factor() {
        let damping = |product: fn(usize, usize) -> f32, first| {
            decompose(&[3, 3], first, &[1.0; 6], product).map(|found| found.damping)
        };
        assert_eq!(damping(|_, _| 1.0, 0.001), Some(0.001));
        assert_eq!(damping(|_, _| 1.0, 0.0), Some(0.01));
        assert_eq!(damping(|i, j| if i == j { 1.0 } else { -0.5 }, 0.2), Some(2.0));
        assert_eq!(damping(|i, j| if i == j { 1.0 } else { -1e9 }, 0.01), None);
        assert_eq!(damping(|_, _| f32::NAN, 0.01), None);
    }
}
