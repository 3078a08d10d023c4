//! Systems with a factored Hessian: two substitutions, panel by panel, with as much of it as products as there is.

use rayon::prelude::*;

use super::cholesky::inverse_transposed;
use super::gemm::{View, add_product, from};
use super::triangle::{Panel, TILE, Upper};

/// `D·(F·diag(d)·Fᵀ)⁻¹`, row by row.
pub(super) fn solve(d: Vec<f32>, width: usize, f: &Upper, costs: &[f32]) -> Vec<f32> {
    let inverses: Vec<Vec<f32>> = f.panels.par_iter().map(inverse_of_block).collect();
    let mut x = d;
    x.par_chunks_mut(TILE * width).for_each(|rows| {
        let mut rows = Rows { data: rows, width };
        // Z·Fᵀ = D, from the last column to the first.
        for (n, panel) in f.panels.iter().enumerate().rev() {
            for after in &f.panels[n + 1..] {
                let part = after.rows(panel.start, panel.width).transposed();
                rows.subtract(after.start, after.width, panel, part);
            }
            rows.multiply(panel, square(&inverses[n], panel.width));
        }
        for row in rows.data.chunks_mut(width) {
            row.iter_mut().zip(costs).for_each(|(x, cost)| *x /= cost);
        }
        // X·F = Z/d, from the first column to the last.
        for (n, panel) in f.panels.iter().enumerate() {
            rows.subtract(0, panel.start, panel, panel.rows(0, panel.start));
            rows.multiply(panel, square(&inverses[n], panel.width).transposed());
        }
    });
    x
}

/// The transposed inverse of the unit triangle on a panel's diagonal.
fn inverse_of_block(panel: &Panel) -> Vec<f32> {
    let block: Vec<f64> = panel.diagonal_block().iter().map(|v| f64::from(*v)).collect();
    inverse_transposed(&block, panel.width).into_iter().map(|v| v as f32).collect()
}

fn square(data: &[f32], width: usize) -> View<'_> {
    View::new(data, width, width, width)
}

/// Some rows of what is solved for.
struct Rows<'a> {
    data: &'a mut [f32],
    width: usize,
}

impl Rows<'_> {
    /// The columns from `start` on, times a matrix.
    fn product(&self, start: usize, count: usize, by: View<'_>, cols: usize) -> Vec<f32> {
        let height = self.data.len() / self.width;
        let mut product = vec![0.0; height * cols];
        let columns = View::new(from(self.data, start), height, count, self.width);
        add_product(&mut product, 1.0, columns, by);
        product
    }

    /// Takes the product of `count` columns from `start` on off a panel's.
    fn subtract(&mut self, start: usize, count: usize, panel: &Panel, by: View<'_>) {
        if count == 0 {
            return;
        }
        let product = self.product(start, count, by, panel.width);
        for (row, product) in self.data.chunks_mut(self.width).zip(product.chunks(panel.width)) {
            row[panel.start..].iter_mut().zip(product).for_each(|(x, p)| *x -= p);
        }
    }

    /// Replaces a panel's columns by their product with a matrix.
    fn multiply(&mut self, panel: &Panel, by: View<'_>) {
        let product = self.product(panel.start, panel.width, by, panel.width);
        for (row, product) in self.data.chunks_mut(self.width).zip(product.chunks(panel.width)) {
            row[panel.start..panel.start + panel.width].copy_from_slice(product);
        }
    }
}
