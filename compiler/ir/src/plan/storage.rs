//! How a target stores a value: the parts of a buffer and their bytes per row.

use crate::{DType, Type};

/// How the bytes of a buffer are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// Row-major elements in their own dtype; the plain, exportable form. I4 codes two to a byte, low nibble first.
    Plain,
    /// Codes for CPU vectors, each scale's group padded to whole blocks of 32 codes: I4 in blocks of 16 bytes, byte `j`
    /// holding code `j` in its low and code `j + 16` in its high nibble; E4M3 codes widened to the f32 they stand for.
    Blocked32,
}

/// One array of a buffer: `rows` × `row_bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `""` for plain tensors; `codes`, `scales`, `outer` for quantized ones.
    pub name: &'static str,
    /// Dtype of an element as stored.
    pub dtype: DType,
    /// Elements per row, counting two I4 codes as the two they are.
    pub cols: usize,
}

impl Part {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        (self.cols * self.dtype.bits()).div_ceil(8)
    }
}

/// Rows longer than this have no layout: far beyond any model, and no size computed from it overflows.
const MAX_COLS: usize = 1 << 40;

/// Codes per block of [`Storage::Blocked32`].
pub const BLOCK: usize = 32;

/// The arrays that hold a value of type `ty`, in the order in which kernels take their addresses: codes, then scales
/// from the innermost level outwards; a plain tensor has one. `None` when the row length is not fixed, or absurd.
pub fn parts(ty: &Type, storage: Storage) -> Option<Vec<Part>> {
    let cols = ty.shape.cols().fixed().filter(|n| *n <= MAX_COLS)?;
    if ty.scheme.0.iter().any(|level| level.extent(cols) > MAX_COLS) {
        return None;
    }
    let Some(inner) = ty.scheme.0.first() else {
        return Some(vec![Part { name: "", dtype: ty.dtype, cols }]);
    };
    let widened = storage == Storage::Blocked32 && ty.dtype == DType::E4M3;
    let code_cols = match storage {
        Storage::Plain => cols,
        Storage::Blocked32 => {
            let extent = inner.extent(cols);
            cols / extent * extent.next_multiple_of(BLOCK) + (cols % extent).next_multiple_of(BLOCK)
        }
    };
    let codes = Part { name: "codes", dtype: if widened { DType::F32 } else { ty.dtype }, cols: code_cols };
    let names = ["scales", "outer"];
    let scales =
        ty.scheme.0.iter().zip(names).map(|(l, name)| Part { name, dtype: l.dtype, cols: l.count(cols) });
    Some(std::iter::once(codes).chain(scales).collect())
}
