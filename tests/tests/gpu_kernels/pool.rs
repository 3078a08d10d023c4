//! Pages of several sequences, scattered over a pool.

use std::ops::Range;

use fireq_ir::interp::{Data, Tensor};
use fireq_ir::quant::Quantized;
use fireq_ir::{Fit, Format, Type};
use fireq_kernels::pages::{At, Pages, Part};

use super::oracle::parts;

/// The cache of a layer, as the host fills it.
pub struct Pool {
    pub layout: Pages,
    /// Pages, of which the first belongs to nobody.
    pub bytes: Vec<u8>,
    /// For each sequence as many entries as the longest has pages; those that it does not have are the first.
    pub tables: Vec<u32>,
    /// Pages of a table.
    pub stride: usize,
}

impl Pool {
    /// A pool of bytes `fill` with room for this many positions of each sequence. Sequences take turns from its end on.
    pub fn new(layout: Pages, contexts: &[usize], fill: u8) -> Self {
        let counts: Vec<usize> = contexts.iter().map(|context| layout.count(*context)).collect();
        let (stride, mut free) = (*counts.iter().max().unwrap(), counts.iter().sum::<usize>());
        let mut pool =
            Pool { layout, bytes: vec![fill; (free + 1) * layout.bytes()], tables: vec![], stride };
        pool.tables = vec![0; counts.len() * stride];
        for page in 0..stride {
            for sequence in (0..counts.len()).filter(|sequence| page < counts[*sequence]) {
                pool.tables[sequence * stride + page] = free as u32;
                free -= 1;
            }
        }
        pool
    }

    fn at(&self, sequence: usize, position: usize, kv_head: usize) -> At {
        let page = self.tables[sequence * self.stride + position / self.layout.keys] as usize;
        At { page, position: position % self.layout.keys, kv_head }
    }

    /// Writes rows of a plain cache.
    pub fn write(&mut self, sequence: usize, part: Part, plain: &Tensor, rows: Range<usize>) {
        let Pages { kv_heads, head, .. } = self.layout;
        let (plain, layout) = (parts(plain), self.layout);
        let code = |i: usize| (plain[0][i / 2] << (4 - i % 2 * 4)) as i8 >> 4;
        for (row, kv_head) in rows.flat_map(|row| (0..kv_heads).map(move |kv_head| (row, kv_head))) {
            let unit = row * kv_heads + kv_head;
            let codes: Vec<i8> = (unit * head..(unit + 1) * head).map(code).collect();
            let at = self.at(sequence, row, kv_head);
            layout.write(&mut self.bytes, at, part, &codes, plain[1][unit]);
        }
    }

    /// The tables' bytes.
    pub fn table_bytes(&self) -> Vec<u8> {
        self.tables.iter().flat_map(|page| page.to_le_bytes()).collect()
    }
}

/// Rows of a plain cache: numbers below 1 of either sign, of which none repeats soon, quantized as the contract has it.
pub fn rows(count: usize, layout: Pages, seed: usize) -> Tensor {
    let Pages { kv_heads, head, .. } = layout;
    let number = |i: usize| ((i * i % 8191 + i * 31 + seed * 7919) as f32 * 0.618).sin();
    let x: Vec<f32> = (0..count * kv_heads * head).map(number).collect();
    let format = Format::kv(head);
    let quantized = Quantized::from_rows(&x, kv_heads * head, &format, Fit::Signed);
    Tensor { ty: Type::f32(count, kv_heads * head).with_format(&format), data: Data::Quant(quantized) }
}
