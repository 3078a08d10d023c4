//! What weights should be for the inputs that they will see to give what they gave for the inputs as they were: errors of
//! everything before a linear are made up for by its own weights, as far as inputs tell them.

use rayon::prelude::*;

use super::Hessian;
use super::cholesky::decompose;
use super::gemm::{View, add_product, from};
use super::hessian::pieces;
use super::solve::solve;
use super::triangle::TILE;

/// `E[(x' − x)ᵀ x]`, of inputs `x'` as they were and `x` as they are; in the windows of a [`Hessian`] of the latter.
pub(crate) struct Differences {
    channels: usize,
    window: usize,
    rows: usize,
    /// A square for each window, row by row.
    windows: Vec<Vec<f32>>,
}

impl Differences {
    /// Zero, for the inputs of a Hessian.
    pub fn new(hessian: &Hessian) -> Self {
        let (channels, window) = (hessian.channels(), hessian.window());
        let windows = pieces(channels, window).map(|width| vec![0.0; width * width]).collect();
        Differences { channels, window, rows: 0, windows }
    }

    /// Adds `rows` inputs. The result does not depend on the number of threads.
    pub fn add_rows(&mut self, was: &[f32], now: &[f32], rows: usize) {
        assert!(was.len() == now.len() && now.len() == rows * self.channels, "rows of all channels");
        let off: Vec<f32> = was.iter().zip(now).map(|(was, now)| was - now).collect();
        let (channels, window) = (self.channels, self.window);
        for (w, square) in self.windows.iter_mut().enumerate() {
            let (start, width) = (w * window, (channels - w * window).min(window));
            square.par_chunks_mut(TILE * width).enumerate().for_each(|(i, tile)| {
                let part = |x, first, width| View::new(from(x, first), rows, width, channels);
                let (row, height) = (start + i * TILE, tile.len() / width);
                add_product(tile, 1.0, part(&off, row, height).transposed(), part(now, start, width));
            });
        }
        self.rows += rows;
    }

    /// What makes up for the differences: `D·(H + λ)⁻¹`, zero for a window whose Hessian has no factor.
    pub fn into_change(self, hessian: &Hessian, damping: f32) -> Change {
        let (moments, mean) = (hessian.diagonal(), 1.0 / self.rows.max(1) as f32);
        let solved = |(n, square): (usize, Vec<f32>)| {
            let start = n * self.window;
            let width = (self.channels - start).min(self.window);
            let widths: Vec<usize> = pieces(width, TILE).collect();
            let found = decompose(&widths, damping, &moments[start..start + width], hessian.products(start));
            found.map(|found| (width, mean, solve(square, width, &found.feedback, &found.costs)))
        };
        let windows = self.windows.into_iter().enumerate().map(solved).collect();
        Change { channels: self.channels, window: self.window, windows }
    }
}

/// By what weights are multiplied to get what is to be added to them.
pub(crate) struct Change {
    channels: usize,
    window: usize,
    /// The width of each window, the factor, and the matrix, row by row.
    windows: Vec<Option<(usize, f32, Vec<f32>)>>,
}

impl Change {
    /// Adds `share` of the change to rows of all channels.
    pub fn add_to(&self, w: &mut [f32], share: f32) {
        let known = self.windows.iter().enumerate().filter_map(|(n, window)| Some((n, window.as_ref()?)));
        for (n, (width, mean, change)) in known {
            let (width, start) = (*width, n * self.window);
            w.par_chunks_mut(TILE * self.channels).for_each(|rows| {
                let height = rows.len() / self.channels;
                let mut sums = vec![0.0; height * width];
                let before = View::new(from(rows, start), height, width, self.channels);
                add_product(&mut sums, share * mean, before, View::new(change, width, width, width));
                for (row, sum) in rows.chunks_mut(self.channels).zip(sums.chunks(width)) {
                    row[start..].iter_mut().zip(sum).for_each(|(w, s)| *w += s);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs of which some are alike, and what they were before something changed them.
    fn inputs(rows: usize, channels: usize) -> (Vec<f32>, Vec<f32>) {
        let wave = |t: usize, c: usize| ((t * 31 + c * 17 + t * c) as f32 * 0.61).sin();
        let now: Vec<f32> = (0..rows * channels).map(|i| wave(i / channels, i % channels)).collect();
        let was = (0..rows * channels).map(|i| {
            let (t, c) = (i / channels, i % channels);
            now[i] + 0.3 * now[t * channels + (c + 1) % channels]
        });
        (was.collect(), now)
    }

    fn squares(w: &[f32], v: &[f32], was: &[f32], now: &[f32], channels: usize) -> f64 {
        let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        was.chunks(channels)
            .zip(now.chunks(channels))
            .map(|(was, now)| (dot(w, was) - dot(v, now)).powi(2))
            .sum()
    }

    #[test]
    fn outputs_become_those_that_were() {
        let (channels, rows) = (600, 1500);
        let (was, now) = inputs(rows, channels);
        let mut hessian = Hessian::new(channels, 4096, 128);
        hessian.add_rows(&now, rows);
        let mut differences = Differences::new(&hessian);
        differences.add_rows(&was[..700 * channels], &now[..700 * channels], 700);
        differences.add_rows(&was[700 * channels..], &now[700 * channels..], rows - 700);
        let w: Vec<f32> = (0..2 * channels).map(|i| (i as f32 * 0.37).cos()).collect();
        let error = |v: &[f32]| squares(&w[channels..], &v[channels..], &was, &now, channels);
        let (mut half, mut all) = (w.clone(), w.clone());
        let change = differences.into_change(&hessian, 1e-5);
        change.add_to(&mut half, 0.5);
        change.add_to(&mut all, 1.0);
        let errors = [error(&w), error(&half), error(&all)];
        assert!((errors[1] / errors[0] - 0.25).abs() < 0.01, "{errors:?}");
        assert!(errors[2] / errors[0] < 1e-3, "{errors:?}");
    }

    #[test]
    fn windows_make_up_for_their_own_channels() {
        let (channels, rows) = (300, 900);
        let (was, now) = inputs(rows, channels);
        let mut hessian = Hessian::new(channels, 128, 64);
        hessian.add_rows(&now, rows);
        let mut differences = Differences::new(&hessian);
        differences.add_rows(&was, &now, rows);
        let mut w: Vec<f32> = (0..channels).map(|i| (i as f32 * 0.37).cos()).collect();
        let before = w.clone();
        differences.into_change(&hessian, 0.01).add_to(&mut w, 1.0);
        let error = |v: &[f32]| squares(&before, v, &was, &now, channels);
        assert!(error(&w) < 0.2 * error(&before), "{} of {}", error(&w), error(&before));
    }
}
