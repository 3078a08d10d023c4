//! How a target stores a value: the parts of a buffer and their bytes per row.

use super::{LINEAR_ROWS, Place, records};
use crate::{DType, Type};

/// How the bytes of a buffer are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// Row-major elements in their own dtype; the plain, exportable form. I4 codes two to a byte, low nibble first. E4M3
    /// weights have no other.
    Plain,
    /// Codes for CPU vectors, each scale's group padded to whole blocks of 32 codes: I4 in blocks of 16 bytes, byte `j`
    /// holding code `j` in its low and code `j + 16` in its high nibble; E4M3 codes widened to the f32 they stand for.
    Blocked32,
    /// INT4 weights for CPUs, whose kernels read [`LINEAR_ROWS`] rows side by side: of each of them a [`LINE`] of blocks, and
    /// then of each the next, so that memory is read from one end to the other.
    Interleaved,
    /// INT4 weights for tensor cores: [`records`], which hold scales, too.
    Records,
    /// E4M3 codes on GPUs, whose copy engine reads them: what has a scale, a token or a head of it, is [`pitch`] bytes from the
    /// next, and what lies between is not read.
    Pitched,
}

/// Bytes from one row of `cols` codes to the next in [`Storage::Pitched`]: descriptors of the copy engine count in 16 bytes,
/// while the columns that exist may be any number.
pub const fn pitch(cols: usize) -> usize {
    cols.next_multiple_of(16)
}

impl Storage {
    /// How a target stores a buffer; `codes` is how it stores codes that have no order of their own there.
    pub fn of(ty: &Type, place: &Place, codes: Storage) -> Self {
        if !ty.dtype.is_code() {
            return Storage::Plain;
        }
        match (codes, place) {
            (Storage::Blocked32, Place::Weight(_)) if interleaves(ty) => Storage::Interleaved,
            (Storage::Plain, Place::Weight(_)) if records::group(ty).is_some() => Storage::Records,
            // Bytes are what bounds a product with them, and a byte is decoded in a few instructions.
            (_, Place::Weight(_)) if ty.dtype == DType::E4M3 => Storage::Plain,
            (Storage::Plain, Place::Input(_) | Place::Output(_) | Place::Arena { .. })
                if ty.dtype == DType::E4M3 =>
            {
                Storage::Pitched
            }
            _ => codes,
        }
    }

    /// The name in text; none for plain storage.
    pub fn name(self) -> &'static str {
        match self {
            Storage::Plain => "",
            Storage::Blocked32 => "blocked32",
            Storage::Interleaved => "interleaved",
            Storage::Records => "records",
            Storage::Pitched => "pitched",
        }
    }
}

/// One array of a buffer: `rows` × `row_bytes`, the number of rows rounded up where they are stored in tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `""` for plain tensors; `codes` or `records`, `scales`, `outer` for quantized ones.
    pub name: &'static str,
    /// Dtype of an element as stored.
    pub dtype: DType,
    /// Elements per row, counting two I4 codes as the two they are.
    pub cols: usize,
    /// Rows that are stored together, the last of them padded; 1 where each lies by itself.
    pub row_tile: usize,
}

impl Part {
    /// A part whose rows lie one after another.
    pub fn rows_of(name: &'static str, dtype: DType, cols: usize) -> Self {
        Part { name, dtype, cols, row_tile: 1 }
    }

    /// The rows that are stored for `rows`, and their bytes; `None` where these are too many.
    pub fn stored(&self, rows: usize) -> Option<(usize, usize)> {
        let rows = rows.checked_next_multiple_of(self.row_tile)?;
        Some((rows, rows.checked_mul(self.row_bytes())?))
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        (self.cols * self.dtype.bits()).div_ceil(8)
    }
}

/// Rows longer than this have no layout: far beyond any model, and no size computed from it overflows.
const MAX_COLS: usize = 1 << 40;

/// Codes per block of [`Storage::Blocked32`].
pub const BLOCK: usize = 32;

/// Codes per line of [`Storage::Interleaved`]: four blocks, a cache line.
pub const LINE: usize = 4 * BLOCK;

/// Whether rows and the groups of their scales are whole lines of INT4 codes.
fn interleaves(ty: &Type) -> bool {
    let (Some(cols), Some(level)) = (ty.shape.cols().fixed(), ty.scheme.0.first()) else { return false };
    ty.dtype == DType::I4 && [cols, level.extent(cols)].iter().all(|n| n.is_multiple_of(LINE))
}

/// The arrays that hold a value of type `ty`, in the order in which kernels take their addresses: codes, then scales
/// from the innermost level outwards; a plain tensor has one. `None` when the row length is not fixed, or absurd, and where
/// the type has no such storage.
pub fn parts(ty: &Type, storage: Storage) -> Option<Vec<Part>> {
    let cols = ty.shape.cols().fixed().filter(|n| *n <= MAX_COLS)?;
    if ty.scheme.0.iter().any(|level| level.extent(cols) > MAX_COLS) {
        return None;
    }
    let Some(inner) = ty.scheme.0.first() else {
        return Some(vec![Part::rows_of("", ty.dtype, cols)]);
    };
    if storage == Storage::Records {
        let bytes = cols.div_ceil(records::COLS) * records::record_bytes(records::group(ty)?) / records::ROWS;
        let records =
            Part { name: "records", dtype: DType::I4, cols: 2 * bytes, row_tile: records::ROW_TILE };
        return Some(vec![records, Part::rows_of("outer", DType::F32, 1)]);
    }
    if storage == Storage::Pitched && ty.dtype != DType::E4M3
        || storage == Storage::Interleaved && !interleaves(ty)
    {
        return None;
    }
    let widened = storage == Storage::Blocked32 && ty.dtype == DType::E4M3;
    let padded = |group| {
        let extent = inner.extent(cols);
        cols / extent * extent.next_multiple_of(group) + (cols % extent).next_multiple_of(group)
    };
    let code_cols = match storage {
        Storage::Blocked32 => padded(BLOCK),
        Storage::Pitched => padded(pitch(1)),
        Storage::Plain | Storage::Interleaved | Storage::Records => cols,
    };
    let row_tile = if storage == Storage::Interleaved { LINEAR_ROWS } else { 1 };
    let dtype = if widened { DType::F32 } else { ty.dtype };
    let codes = Part { name: "codes", dtype, cols: code_cols, row_tile };
    let names = ["scales", "outer"];
    let scales = ty.scheme.0.iter().zip(names).map(|(l, name)| Part::rows_of(name, l.dtype, l.count(cols)));
    Some(std::iter::once(codes).chain(scales).collect())
}
