//! Numbers as a checkpoint has them that are not packed.

use fireq_ir::interp::{Data, InterpError, Tensor};
use fireq_ir::plan::{Storage, pack_tensor};
use fireq_ir::{DType, Shape, Type};

/// A number as a dtype of a checkpoint rounds it.
pub(super) fn narrowed(number: f32, dtype: DType) -> f32 {
    if dtype == DType::BF16 { half::bf16::from_f32(number).to_f32() } else { number }
}

/// The bytes of numbers.
pub(super) fn bytes(numbers: Vec<f32>, dtype: DType) -> Result<Vec<u8>, InterpError> {
    let ty = Type::plain(dtype, Shape::vector(numbers.len()));
    let mut parts = pack_tensor(&Tensor { ty, data: Data::Float(numbers) }, Storage::Plain)?;
    Ok(parts.swap_remove(0).1.into_owned())
}
