//! How a tensor of the twin comes from the original's.

use std::collections::BTreeMap;

/// Edits by the tensor's name.
pub type Edits = BTreeMap<String, Edit>;

/// Where each index along an axis of the twin's tensor comes from, and times what; none is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis(pub Vec<Option<(usize, f32)>>);

/// A tensor of the twin, from the original's tensor of the same name: element `(r, c)` is that of the indices which the axes
/// give, times both factors, and plus what is added to row `r`.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Along the first dimension.
    pub rows: Axis,
    /// Along the second; none for a vector.
    pub columns: Option<Axis>,
    /// Added to rows, by index in the twin.
    pub added: BTreeMap<usize, f32>,
}

impl Axis {
    /// Everything as it is.
    pub fn identity(size: usize) -> Axis {
        Axis((0..size).map(|n| Some((n, 1.0))).collect())
    }

    /// Multiplies what stands at an index.
    pub fn scale(&mut self, at: usize, factor: f32) {
        if let Some((_, times)) = &mut self.0[at] {
            *times *= factor;
        }
    }

    /// The axis whose indices come from those of this one.
    pub fn take(&self, from: &Axis) -> Axis {
        let one = |(at, factor): (usize, f32)| self.0[at].map(|(origin, times)| (origin, times * factor));
        Axis(from.0.iter().map(|source| source.and_then(one)).collect())
    }

    /// The same for each of `heads`, whose channels here are `dim`.
    pub fn per_head(&self, heads: usize, dim: usize) -> Axis {
        let head = |h| self.0.iter().map(move |source| source.map(|(at, times)| (h * dim + at, times)));
        Axis((0..heads).flat_map(head).collect())
    }
}

impl Edit {
    /// A tensor of these rows and columns as it is; one column is a vector.
    pub fn identity([rows, columns]: [usize; 2]) -> Edit {
        let columns = (columns > 1).then(|| Axis::identity(columns));
        Edit { rows: Axis::identity(rows), columns, added: BTreeMap::new() }
    }

    /// A vector of zeros, for a bias that the original does not have.
    pub fn zeros(rows: usize) -> Edit {
        Edit { rows: Axis(vec![None; rows]), columns: None, added: BTreeMap::new() }
    }

    /// Shape of the twin's tensor.
    pub fn shape(&self) -> Vec<usize> {
        std::iter::once(&self.rows).chain(&self.columns).map(|axis| axis.0.len()).collect()
    }

    /// A row of the twin, from the rows of the original.
    pub fn row(&self, at: usize, original: impl Fn(usize) -> Vec<f32>) -> Vec<f32> {
        let source = self.rows.0[at].map(|(row, times)| (original(row), times));
        let element = |column, factor: f32| source.as_ref().map_or(0.0, |(row, t)| row[column] * t * factor);
        let added = self.added.get(&at).copied().unwrap_or(0.0);
        match &self.columns {
            None => vec![element(0, 1.0) + added],
            Some(Axis(columns)) => columns.iter().map(|c| c.map_or(0.0, |(c, t)| element(c, t))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_compose_and_elements_take_both_factors() {
        let mut edit = Edit::identity([2, 3]);
        edit.rows.scale(1, 4.0);
        edit.columns.as_mut().unwrap().scale(2, 0.5);
        edit.rows = edit.rows.take(&Axis(vec![Some((1, 10.0)), None, Some((0, 1.0))]));
        let rows = [vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]];
        let found: Vec<_> = (0..3).map(|at| edit.row(at, |row| rows[row].clone())).collect();
        assert_eq!(found, [[160.0, 200.0, 120.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.5]]);
        assert_eq!(edit.shape(), [3, 3]);
    }

    #[test]
    fn heads_repeat_an_axis_and_zeros_take_what_is_added() {
        let axis = Axis(vec![Some((1, 2.0)), None]).per_head(2, 2);
        assert_eq!(axis.0, [Some((1, 2.0)), None, Some((3, 2.0)), None]);
        let mut bias = Edit::zeros(2);
        bias.added.insert(1, 7.0);
        assert_eq!([0, 1].map(|at| bias.row(at, |_| vec![])[0]), [0.0, 7.0]);
    }
}
