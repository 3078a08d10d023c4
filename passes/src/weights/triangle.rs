//! Upper triangular matrices as panels of columns, each as long as its last row that counts.

use rayon::prelude::*;

use super::gemm::View;

/// Rows of a panel that one task works on: large enough for a product to pay for its packing.
pub(super) const TILE: usize = 256;

/// Columns `start .. start + width`, with the rows above and on the diagonal, row by row.
pub(super) struct Panel {
    pub start: usize,
    pub width: usize,
    /// `(start + width) × width`; what is below the diagonal in the last `width` rows means nothing.
    pub data: Vec<f32>,
}

/// An upper triangular matrix; half the memory of a square, and each panel can be written while later ones are read.
pub(super) struct Upper {
    pub panels: Vec<Panel>,
}

impl Panel {
    /// `count` rows from `first` on.
    pub fn rows(&self, first: usize, count: usize) -> View<'_> {
        View::new(&self.data[first * self.width..], count, self.width, self.width)
    }

    /// The square on the diagonal, row by row.
    pub fn diagonal_block(&self) -> &[f32] {
        &self.data[self.start * self.width..]
    }
}

impl Upper {
    /// Panels of these widths, in this order, filled with zeros.
    pub fn zeros(widths: impl IntoIterator<Item = usize>) -> Self {
        let mut start = 0;
        let panel = |width| {
            let panel = Panel { start, width, data: vec![0.0; (start + width) * width] };
            start += width;
            panel
        };
        Upper { panels: widths.into_iter().map(panel).collect() }
    }

    /// Sets every stored element (row, column) on and above the diagonal.
    pub fn fill(&mut self, element: impl Fn(usize, usize) -> f32 + Sync) {
        self.panels.par_iter_mut().for_each(|panel| {
            for (row, values) in panel.data.chunks_exact_mut(panel.width).enumerate() {
                for (col, value) in (panel.start..).zip(values).filter(|(col, _)| *col >= row) {
                    *value = element(row, col);
                }
            }
        });
    }

    /// The diagonal.
    pub fn diagonal(&self) -> impl Iterator<Item = f32> {
        self.panels.iter().flat_map(|p| p.diagonal_block().iter().step_by(p.width + 1).copied())
    }
}
