//! Numbers as a checkpoint has them that are not packed.

use fireq_ir::{ConstData, DType};

/// A number as a dtype of a checkpoint rounds it.
pub(super) fn narrowed(number: f32, dtype: DType) -> f32 {
    if dtype == DType::BF16 { half::bf16::from_f32(number).to_f32() } else { number }
}

/// The bytes of numbers that were [`narrowed`]; `None` where one is not finite.
pub(super) fn bytes(numbers: &[f32], dtype: DType) -> Option<Vec<u8>> {
    let finite = numbers.iter().all(|number| number.is_finite());
    ConstData::from_numbers(dtype, numbers).filter(|_| finite)?.bytes().map(<[u8]>::to_vec)
}
