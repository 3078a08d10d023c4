//! The second moment of a linear's inputs, which weighs the errors of its weights.

use rayon::prelude::*;

use super::gemm::{View, add_product, from};
use super::triangle::{TILE, Upper};

/// `XᵀX` over the inputs `X` of a linear. It is kept in windows of neighbouring channels on the diagonal: products of
/// channels of different windows are dropped, so that memory is at most half of `channels × window` f32.
pub(crate) struct Hessian {
    channels: usize,
    window: usize,
    rows: usize,
    windows: Vec<Upper>,
}

impl Hessian {
    /// Zero, for inputs of `channels`. Windows are equal, as wide as `window` allows, and hold whole groups of `group`
    /// channels; at least one.
    pub fn new(channels: usize, window: usize, group: usize) -> Self {
        let groups = channels.div_ceil(group.max(1)).max(1);
        let count = groups.div_ceil((window / group.max(1)).max(1));
        let window = groups.div_ceil(count) * group.max(1);
        let widths = |start: usize| pieces((channels - start).min(window), TILE);
        let windows = (0..channels).step_by(window).map(|start| Upper::zeros(widths(start))).collect();
        Hessian { channels, window, rows: 0, windows }
    }

    /// Adds `rows` inputs of all channels. The result does not depend on the number of threads.
    pub fn add_rows(&mut self, x: &[f32], rows: usize) {
        assert_eq!(x.len(), rows * self.channels, "rows of all channels");
        let (channels, window) = (self.channels, self.window);
        let tiles = self.windows.par_iter_mut().enumerate().flat_map(|(w, upper)| {
            upper.panels.par_iter_mut().flat_map_iter(move |panel| {
                let (column, width) = (w * window + panel.start, panel.width);
                let tiles = panel.data.chunks_mut(TILE * width).enumerate();
                tiles.map(move |(i, tile)| (w * window + i * TILE, column, width, tile))
            })
        });
        tiles.for_each(|(row, column, width, tile)| {
            let part = |first: usize, width| View::new(from(x, first), rows, width, channels);
            add_product(tile, 1.0, part(row, tile.len() / width).transposed(), part(column, width));
        });
        self.rows += rows;
    }

    /// Channels of an input.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How many inputs were added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The most channels of a window. Windows start at its multiples.
    pub fn window(&self) -> usize {
        self.window
    }

    /// E\[x²\] of each channel; zero before any input.
    pub fn diagonal(&self) -> Vec<f32> {
        let mean = 1.0 / self.rows.max(1) as f32;
        self.windows.iter().flat_map(Upper::diagonal).map(|sum| sum * mean).collect()
    }

    /// E\[x y\] of two channels of the window that starts at channel `start`, both counted from there.
    pub fn products(&self, start: usize) -> impl Fn(usize, usize) -> f32 + Sync {
        let (upper, mean) = (&self.windows[start / self.window], 1.0 / self.rows.max(1) as f32);
        move |i, j| {
            let (i, j) = (i.min(j), i.max(j));
            let panel = &upper.panels[j / TILE];
            panel.data[i * panel.width + j % TILE] * mean
        }
    }
}

/// `total` cut into pieces of `size`, the last one shorter.
pub(super) fn pieces(total: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..total).step_by(size.max(1)).map(move |start| size.min(total - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_whole_groups() {
        let window = |channels, window, group| Hessian::new(channels, window, group).window();
        assert_eq!(window(14336, 4096, 128), 3584);
        assert_eq!(window(576, 4096, 128), 640);
        assert_eq!(window(1000, 10, 128), 128);
        assert_eq!(window(0, 0, 0), 1);
    }

    #[test]
    fn products_are_means_over_all_inputs() {
        let (channels, rows) = (600, 7);
        let x: Vec<f32> = (0..rows * channels).map(|i| (i * i % 11) as f32 - 5.0).collect();
        let mut hessian = Hessian::new(channels, 320, 32);
        hessian.add_rows(&x[..3 * channels], 3);
        hessian.add_rows(&x[3 * channels..], 4);
        let exact = |a: usize, b: usize| x.chunks(channels).map(|row| row[a] * row[b]).sum::<f32>() / 7.0;
        let products = hessian.products(320);
        for (i, j) in [(0, 0), (3, 270), (270, 3), (279, 279)] {
            assert!((products(i, j) - exact(320 + i, 320 + j)).abs() < 1e-5);
        }
        let diagonal = hessian.diagonal();
        assert_eq!(diagonal.len(), channels);
        assert!((0..channels).all(|c| (diagonal[c] - exact(c, c)).abs() < 1e-5));
    }
}
