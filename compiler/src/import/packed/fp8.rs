//! Rows of FP8 weights.

use std::ops::Range;
use std::sync::Arc;

use fireq_ir::{ConstData, RowSource, e4m3};

use super::layout::Scales;

/// A weight `[rows, cols]` of E4M3 under scales that cover so many rows and channels.
pub(super) struct Floats {
    pub rows: usize,
    pub cols: usize,
    pub codes: ConstData,
    /// By row and column of blocks.
    pub scales: Scales,
    pub block: (usize, usize),
}

impl RowSource for Floats {
    fn rows(&self) -> usize {
        self.rows
    }

    fn row_bytes(&self) -> usize {
        4 * self.cols
    }

    fn decode(&self, rows: Range<usize>) -> Vec<u8> {
        let (tall, wide) = self.block;
        let blocks = self.cols.div_ceil(wide);
        let table: Vec<f32> = (0..=255).map(e4m3::decode).collect();
        let codes = &self.codes.bytes().unwrap_or_default()[rows.start * self.cols..rows.end * self.cols];
        let mut out = Vec::with_capacity(4 * codes.len());
        for (row, codes) in rows.zip(codes.chunks_exact(self.cols)) {
            let scales = self.scales.of_row(row / tall, blocks);
            for (codes, scale) in codes.chunks(wide).zip(scales) {
                out.extend(codes.iter().flat_map(|code| (table[usize::from(*code)] * scale).to_le_bytes()));
            }
        }
        out
    }

    fn hash(&self) -> Arc<str> {
        let parts = [&self.codes, &self.scales.data].map(|part| part.hash().unwrap_or_default());
        let text = format!("fp8 {} {} {:?} {parts:?}", self.rows, self.cols, self.block);
        blake3::hash(text.as_bytes()).to_hex()[..16].into()
    }

    fn parts(&self) -> Vec<&ConstData> {
        vec![&self.codes, &self.scales.data]
    }
}
