//! Of products with INT4 weights, decoded while they are multiplied or before.

use super::{DevicePtr, Params, TensorMap};

params! {
    /// Of a product with INT4 weights and E4M3 tokens.
    Linear = "fireq::linear::Params" {
        /// `e4m3[tokens, cols]`, as [`crate::cuda::Linear::x`] describes it.
        x: TensorMap,
        /// The weight's [`crate::records`].
        records: DevicePtr,
        /// `f32[tokens]`.
        token_scales: DevicePtr,
        /// `f32`, one for each row of the weight.
        channel_scales: DevicePtr,
        /// `[channels]` of a bias or `f32[tokens, channels]` of a residual, where the epilogue adds one.
        addend: DevicePtr,
        /// `[tokens, channels]`, f32 or bf16 as the epilogue has it.
        out: DevicePtr,
        /// Rows of `x`.
        tokens: u32,
        /// Output channels: rows of the weight, or half of them where they are gates and ups.
        channels: u32,
        /// Columns of the weight in units of 128, rounded up.
        steps: u32,
    }
    /// Of the decoding of INT4 weights.
    DecodeWeight = "fireq::decode_weight::Params" {
        /// The weight's [`crate::records`].
        records: DevicePtr,
        /// `e4m3`, of the sizes that [`crate::cuda::LinearFp8::workspace`] has.
        rows: DevicePtr,
        /// Columns of the weight in units of 128, rounded up.
        steps: u32,
    }
    /// Of a product with decoded weights and E4M3 tokens.
    LinearFp8 = "fireq::linear_fp8::Params" {
        /// `e4m3[tokens, cols]`, as [`crate::cuda::LinearFp8::x`] describes it.
        x: TensorMap,
        /// The decoded weight, as [`crate::cuda::LinearFp8::weight`] describes it.
        weight: TensorMap,
        /// `f32[tokens]`.
        token_scales: DevicePtr,
        /// As for [`Linear`].
        channel_scales: DevicePtr,
        /// As for [`Linear`].
        addend: DevicePtr,
        /// As for [`Linear`].
        out: DevicePtr,
        /// Rows of `x`.
        tokens: u32,
        /// As for [`Linear`].
        channels: u32,
        /// Columns of the weight in units of 128, rounded up.
        steps: u32,
        /// Token tiles of a band: [`crate::cuda::LinearFp8Config::band`].
        band: u32,
    }
}
