//! Calibrated quantization of weights (FireQ section 2): numbers in, codes and scales out.
//!
//! [`quantize`] chooses codes and scales for one weight by a [`Method`]; a [`Hessian`] says what its inputs are like.
//! What is minimized is the error of the numbers that kernels decode, `c · rn8(q·σ)`. All of it is done for some rows at a
//! time, side by side in vectors, in units of their outer scales:
//!
//! | file | holds |
//! |---|---|
//! | `outer` | the outer scale of each row |
//! | `window`, `cholesky` | for channels that compensate each other: order, costs, and the feedback of errors |
//! | `rows`, `strip`, `search`, `lanes` | 256 rows of a window, 16 rows of a block, a group of those, a channel of those |
//! | `catch_up`, `solve` | what makes up for errors before a linear |
//! | `hessian`, `triangle`, `gemm` | sums over inputs, half a matrix, products |

mod catch_up;
mod cholesky;
mod gemm;
mod hessian;
mod lanes;
mod method;
mod outer;
mod rows;
mod search;
mod solve;
mod strip;
mod triangle;
mod window;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod tests;

use fireq_ir::Format;
use fireq_ir::quant::Quantized;
use rayon::prelude::*;

pub(crate) use catch_up::{Change, Differences};
pub(crate) use hessian::Hessian;
pub(crate) use method::{Method, Order, Outer, Rounding, Share};
use outer::{outer_scales, underflows};
use rows::{ROWS, Rows, Tally};
use window::Window;

/// The most channels that compensate each other: 64 MiB of Hessian hold them, and more repair little more.
pub const WINDOW: usize = 4096;

/// What was chosen for a weight, and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// How many groups took each of the method's clip ratios.
    pub clips: Vec<(f32, usize)>,
    /// The smallest outer scale.
    pub outer_min: f32,
    /// The largest outer scale.
    pub outer_max: f32,
    /// Groups other than zeros whose scale is too small for E4M3.
    pub underflows: usize,
    /// The root of `Σ E[x²] (w − ŵ)² / Σ E[x²] w²`, with ones for E\[x²\] without a Hessian. Compensation, which trades
    /// errors of channels that are alike, raises it.
    pub error: f32,
    /// The largest damping that a window needed; zero if nothing was compensated.
    pub damping: f32,
}

/// Quantizes the rows of `w`, of `cols` channels each, in groups of `group`, the last one shorter if need be.
///
/// The Hessian has the channels of `w` and windows that start at groups. One that has seen no inputs, or some that are
/// not finite, counts as none. The result does not depend on the number of threads. Besides `w` and the result, this
/// holds the factor of one window and 256 rows of it per thread.
pub(crate) fn quantize(
    w: &[f32],
    cols: usize,
    group: usize,
    method: &Method,
    hessian: Option<&Hessian>,
) -> (Quantized, Summary) {
    let (cols, group) = (cols.max(1), group.max(1));
    let (hessian, moments) = calibration(cols, hessian);
    let window = hessian.map_or(WINDOW.next_multiple_of(group), Hessian::window);
    assert!(window >= cols || window.is_multiple_of(group), "windows start at groups");

    let outer = outer_scales(w, cols, group, method);
    let underflows = underflows(w, cols, group, &outer);
    let scales = vec![vec![0.0; outer.len() * cols.div_ceil(group)], outer];
    let mut quantized = Quantized { format: Format::weight(group), cols, codes: vec![0; w.len()], scales };
    let (mut tally, mut damping) = (Tally::new(method), 0.0f32);
    for start in (0..cols).step_by(window) {
        let channels = start..(start + window).min(cols);
        let window = Window::new(channels, group, method, hessian, &moments);
        tally = tally.plus(&quantize_window(w, group, method, &window, &mut quantized));
        damping = damping.max(window.damping);
    }
    let summary = summary(method, tally, damping, underflows, &quantized.scales[1]);
    (quantized, summary)
}

/// A Hessian that says something, and E\[x²\] of each channel: ones without it.
fn calibration(cols: usize, hessian: Option<&Hessian>) -> (Option<&Hessian>, Vec<f32>) {
    let known = hessian.map(|h| (h, h.diagonal()));
    assert!(
        known.as_ref().is_none_or(|(_, moments)| moments.len() == cols),
        "a Hessian of the weight's channels"
    );
    let finite = |moments: &[f32]| moments.iter().all(|m| m.is_finite());
    match known.filter(|(h, moments)| h.rows() > 0 && finite(moments)) {
        Some((hessian, moments)) => (Some(hessian), moments),
        None => (None, vec![1.0; cols]),
    }
}

/// Fills in codes and scales of a window's channels.
fn quantize_window(w: &[f32], group: usize, method: &Method, window: &Window, to: &mut Quantized) -> Tally {
    let (cols, groups) = (to.cols, to.cols.div_ceil(group));
    let (scales, outer) = to.scales.split_at_mut(1);
    let weights = w.par_chunks(ROWS * cols).zip(outer[0].par_chunks(ROWS));
    let places = to.codes.par_chunks_mut(ROWS * cols).zip(scales[0].par_chunks_mut(ROWS * groups));
    let tallies: Vec<Tally> = weights
        .zip(places)
        .map(|((weights, outer), (codes, scales))| {
            Rows { weights, outer, codes, scales }.quantize(window, method)
        })
        .collect();
    // One after the other, so that sums do not depend on threads.
    tallies.iter().fold(Tally::new(method), Tally::plus)
}

fn summary(method: &Method, tally: Tally, damping: f32, underflows: usize, outer: &[f32]) -> Summary {
    let outer = || outer.iter().copied();
    Summary {
        clips: method.clips.iter().copied().zip(tally.clips).collect(),
        outer_min: outer().reduce(f32::min).unwrap_or(1.0),
        outer_max: outer().reduce(f32::max).unwrap_or(1.0),
        underflows,
        error: if tally.squares > 0.0 { (tally.errors / tally.squares).sqrt() as f32 } else { 0.0 },
        damping,
    }
}
