//! Some output channels of a weight, in place of all of them: errors are alike across hundreds of channels, and so are
//! the magnitudes of their columns.

use fireq_ir::expression::leaf_name;
use fireq_ir::interp::eval_constant;
use fireq_ir::{ConstData, DType, Graph, Op, PassError, Shape, Type, ValueId};

/// The most output channels that are looked at.
pub const ROWS: usize = 512;

/// A constant with evenly spaced rows of a weight: all of a small one.
pub(crate) fn sample(graph: &Graph, weight: ValueId) -> Result<(Type, ConstData), PassError> {
    let refuse = |reason: String| {
        let site = leaf_name(graph, weight).to_string();
        PassError::Refused { site, reason }
    };
    let ty = graph.ty(weight);
    let stored = match graph.op(weight) {
        Op::Const { name } => graph.constants.get(name).filter(|data| data.bytes().is_some()),
        _ => None,
    };
    let (dtype, data) = if let Some(data) = stored {
        (ty.dtype, data.clone())
    } else {
        let weight = eval_constant(graph, weight).map_err(|e| refuse(e.to_string()))?;
        (DType::F32, ConstData::from_f32(&weight.to_f32()))
    };
    let bytes = data.bytes().unwrap_or_default();
    let [Some(rows), Some(cols)] = [ty.shape.rows().fixed(), ty.shape.cols().fixed()] else {
        return Err(refuse("has no fixed shape".into()));
    };
    let row_bytes = (cols * dtype.bits() / 8).max(1);
    let chosen = rows.min(ROWS);
    let row = |n: usize| bytes.chunks(row_bytes).nth(n * rows / chosen).unwrap_or_default();
    let sampled: Vec<u8> = (0..chosen).flat_map(row).copied().collect();
    data.release();
    Ok((Type::plain(dtype, Shape::matrix(chosen, cols)), ConstData::from_bytes(sampled)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_over_a_large_weight_and_all_of_a_small_one() {
        let sampled = |rows: usize| {
            let mut graph = Graph::new("g");
            let values: Vec<f32> = (0..rows).flat_map(|n| [n as f32, -(n as f32)]).collect();
            let ty = Type::plain(DType::F32, Shape::matrix(rows, 2));
            let weight = graph.constant("w", ty, ConstData::from_f32(&values));
            sample(&graph, weight).unwrap().1.numbers(DType::F32).unwrap()
        };
        assert_eq!(sampled(3), [0.0, 0.0, 1.0, -1.0, 2.0, -2.0]);
        let many = sampled(1024);
        assert_eq!((many.len(), many[2], many[1022]), (1024, 2.0, 1022.0));
    }
}
