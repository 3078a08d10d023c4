//! Some rows of a packed weight, of one that is stored for several.

use std::ops::Range;
use std::sync::Arc;

use fireq_ir::{ConstData, Dim, RowSource, Type};

/// Rows of a weight as a constant of their own.
pub(in super::super) fn rows(
    (ty, data): &(Type, ConstData),
    rows: Range<usize>,
) -> Option<(Type, ConstData)> {
    let ConstData::Decoded { source, .. } = data else { return None };
    let mut ty = ty.clone();
    *ty.shape.0.first_mut()? = Dim::Fixed(rows.len());
    Some((ty, ConstData::decoded(Arc::new(Part { source: source.clone(), rows }))))
}

struct Part {
    source: Arc<dyn RowSource>,
    rows: Range<usize>,
}

impl RowSource for Part {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn row_bytes(&self) -> usize {
        self.source.row_bytes()
    }

    fn decode(&self, rows: Range<usize>) -> Vec<u8> {
        self.source.decode(self.rows.start + rows.start..self.rows.start + rows.end)
    }

    fn hash(&self) -> Arc<str> {
        let text = format!("{} {:?}", self.source.hash(), self.rows);
        blake3::hash(text.as_bytes()).to_hex()[..16].into()
    }

    fn parts(&self) -> Vec<&ConstData> {
        self.source.parts()
    }
}
