//! TMA descriptors, which only the driver knows how to write.

use std::ffi::c_void;

use cudarc::driver::result::DriverError;
use cudarc::driver::sys;
use fireq_kernels::{Swizzle, TensorMapShape};

use super::CudaError;

/// The 128 bytes of a descriptor of the tensor at `address`, which is a multiple of 16. What a copy reads outside the
/// tensor is zero.
pub fn encode(shape: &TensorMapShape, address: u64) -> Result<[u8; 128], CudaError> {
    let rank = shape.sizes.len();
    let fits = (1..=5).contains(&rank) && shape.strides.len() + 1 == rank && shape.tile.len() == rank;
    let dtype = match shape.element {
        1 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        2 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT16,
        4 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT32,
        _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT64,
    };
    if !fits || ![1, 2, 4, 8].contains(&shape.element) {
        return Err(CudaError::Size(format!("{shape:?} is no tensor that TMA copies")));
    }
    let steps = [1u32; 5];
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: all arrays have `rank` elements, strides one less, as checked above; the driver checks their values.
    let made = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            dtype,
            rank as u32,
            address as *mut c_void,
            shape.sizes.as_ptr(),
            shape.strides.as_ptr(),
            shape.tile.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle(shape.swizzle),
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    made.result().map_err(|e: DriverError| CudaError::of(format!("a tensor map of {shape:?}"))(e))?;
    let mut bytes = [0; 128];
    for (to, word) in bytes.chunks_exact_mut(8).zip(map.opaque) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}

fn swizzle(swizzle: Swizzle) -> sys::CUtensorMapSwizzle {
    match swizzle {
        Swizzle::None => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::B32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::B64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::B128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    }
}
