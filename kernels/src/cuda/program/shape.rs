//! Tensors that grow with what memory has room for.

use serde::{Deserialize, Serialize};

use super::Extent;
use crate::{Swizzle, TensorMapShape};

/// A number that grows with what memory has room for: `fixed + by · n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affine(pub u64, pub u64);

impl Affine {
    fn at(self, n: u64) -> u64 {
        self.0.saturating_add(self.1.saturating_mul(n))
    }
}

/// A [`TensorMapShape`] of a tensor that grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapShape {
    /// What it grows with.
    pub per: Extent,
    /// As there.
    pub element: u32,
    /// As there, growing.
    pub sizes: Vec<Affine>,
    /// As there, growing.
    pub strides: Vec<Affine>,
    /// As there.
    pub tile: Vec<u32>,
    /// As there.
    pub swizzle: Swizzle,
}

impl MapShape {
    /// The shape that `of` has for each multiple of 16, where sizes and strides grow evenly.
    ///
    /// # Panics
    ///
    /// When they do not, which no shape of a kernel does.
    pub fn of(per: Extent, of: impl Fn(usize) -> TensorMapShape) -> Self {
        let [first, second] = [16, 32].map(&of);
        let affine = |a: &[u64], b: &[u64]| {
            let line = |(a, b): (&u64, &u64)| Affine(2 * a - b, (b - a) / 16);
            a.iter().zip(b).map(line).collect::<Vec<_>>()
        };
        let shape = MapShape {
            per,
            element: first.element,
            sizes: affine(&first.sizes, &second.sizes),
            strides: affine(&first.strides, &second.strides),
            tile: first.tile,
            swizzle: first.swizzle,
        };
        assert_eq!(shape.at(4096), of(4096), "sizes and strides grow evenly");
        shape
    }

    /// The shape where there is room for `n`.
    pub fn at(&self, n: usize) -> TensorMapShape {
        let at = |list: &[Affine]| list.iter().map(|a| a.at(n as u64)).collect();
        TensorMapShape {
            element: self.element,
            sizes: at(&self.sizes),
            strides: at(&self.strides),
            tile: self.tile.clone(),
            swizzle: self.swizzle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_grow_as_they_are_told() {
        let shape = |n: usize| TensorMapShape {
            element: 1,
            sizes: vec![n as u64, 64],
            strides: vec![2 * n as u64],
            tile: vec![16, 16],
            swizzle: Swizzle::B128,
        };
        let grows = MapShape::of(Extent::Positions, shape);
        assert_eq!(grows.sizes, [Affine(0, 1), Affine(64, 0)]);
        assert_eq!((grows.at(48), grows.at(160)), (shape(48), shape(160)));
    }

    #[test]
    fn absurd_room_gives_absurd_shapes_and_no_panic() {
        assert_eq!(Affine(1, u64::MAX).at(2), u64::MAX);
    }
}
