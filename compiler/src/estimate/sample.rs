//! Stand-ins for weights that are not here: rows of random numbers in their types, made when they are asked for, which take as long
//! to quantize as any.

use std::ops::Range;
use std::sync::Arc;

use fireq_ir::{ConstData, DType, Graph, Op, RowSource, Shape, Type};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Gives numbers to constants that have no data, of a graph as it is imported; nothing is made yet.
pub fn stand_in(graph: &mut Graph) {
    fill_with(graph, ConstData::decoded);
}

/// The same, with all numbers in memory, for small graphs.
pub(super) fn fill(graph: &mut Graph) {
    fill_with(graph, |source| ConstData::from_bytes(source.decode(0..source.rows())));
}

fn fill_with(graph: &mut Graph, data: impl Fn(Arc<dyn RowSource>) -> ConstData) {
    for value in graph.schedule() {
        let Op::Const { name } = graph.op(value).clone() else { continue };
        if graph.constants.get(&name).is_none_or(|known| known.size().is_some()) {
            continue;
        }
        let numbers = Numbers::of(graph.ty(value), name.len() as u64);
        graph.constants.extend(numbers.map(|numbers| (name, data(Arc::new(numbers)))));
    }
}

/// Numbers in one order, which every row begins with at another place.
struct Numbers {
    rows: usize,
    row_bytes: usize,
    /// More than a row.
    bytes: Vec<u8>,
    step: usize,
}

/// Numbers that are more than those of a row.
const MORE: usize = 4096;

impl Numbers {
    /// For constants of floats; `None` for others.
    fn of(ty: &Type, seed: u64) -> Option<Self> {
        let Type { dtype, shape: Shape(dims), .. } = ty;
        let dims: Vec<usize> = dims.iter().map(fireq_ir::Dim::fixed).collect::<Option<_>>()?;
        let (vector, cols) = (dims.len() == 1, *dims.last()?);
        let rows = if vector { 1 } else { dims[0] };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut number = || {
            // Of about the size of weights, and norms near 1; every dtype has them exactly.
            let x = rng.random_range(-127..=127) as f32 / 2048.0;
            if vector { 1.0 + 16.0 * x } else { x }
        };
        let numbers: Vec<f32> = (0..cols + MORE).map(|_| number()).collect();
        let data = ConstData::from_numbers(*dtype, &numbers).filter(|_| *dtype != DType::I32)?;
        let size = dtype.bits() / 8;
        Some(Numbers { rows, row_bytes: cols * size, bytes: data.bytes()?.to_vec(), step: size })
    }
}

impl RowSource for Numbers {
    fn rows(&self) -> usize {
        self.rows
    }

    fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    fn decode(&self, rows: Range<usize>) -> Vec<u8> {
        let mut all = Vec::with_capacity(rows.len() * self.row_bytes);
        for row in rows {
            // A prime number, so that neighbours are not alike.
            let start = row * 1009 % MORE * self.step;
            all.extend_from_slice(&self.bytes[start..start + self.row_bytes]);
        }
        all
    }

    fn hash(&self) -> Arc<str> {
        blake3::hash(&self.bytes).to_hex()[..16].into()
    }

    fn parts(&self) -> Vec<&ConstData> {
        vec![]
    }
}
