//! What each kernel takes: one structure, laid out as its mirror in `kernels/cuda/kernel` is. Every unit compares the
//! two, field by field, when it is compiled. Longer than others because all launches are in one list.

/// An address in device memory; 0 where an operand is left out.
pub type DevicePtr = u64;

/// A kernel's parameters, passed by value.
pub trait Params {
    /// The structure's name in C++.
    const TYPE: &'static str;
    /// Fields in order, with their offsets.
    const FIELDS: &'static [(&'static str, usize)];
    /// Bytes of the structure.
    const SIZE: usize;

    /// The bytes that a launch passes; padding is zero.
    fn bytes(&self) -> Vec<u8>;
}

/// A TMA descriptor, opaque: the driver encodes it. See [`crate::TensorMapShape`] for what it says.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorMap(pub [u8; 128]);

impl Default for TensorMap {
    fn default() -> Self {
        TensorMap([0; 128])
    }
}

impl TensorMap {
    fn to_le_bytes(self) -> [u8; 128] {
        self.0
    }
}

macro_rules! params {
    ($( $(#[doc = $doc:literal])* $name:ident = $type:literal { $( $(#[doc = $field_doc:literal])* $field:ident: $ty:ty, )* } )*) => { $(
        $(#[doc = $doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $name { $( $(#[doc = $field_doc])* pub $field: $ty, )* }

        impl Params for $name {
            const TYPE: &'static str = $type;
            const FIELDS: &'static [(&'static str, usize)] = &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
            const SIZE: usize = size_of::<$name>();

            fn bytes(&self) -> Vec<u8> {
                let mut bytes = vec![0; Self::SIZE];
                $( {
                    let field = self.$field.to_le_bytes();
                    bytes[std::mem::offset_of!($name, $field)..][..field.len()].copy_from_slice(&field);
                } )*
                bytes
            }
        }
    )* };
}

params! {
    /// Of the kernel that gathers rows of a table.
    Gather = "fireq::gather::Params" {
        /// `[rows, cols]` in the table's format.
        table: DevicePtr,
        /// `i32[tokens]`.
        index: DevicePtr,
        /// `f32[tokens, cols]`.
        out: DevicePtr,
        /// Rows of the table.
        rows: u32,
    }
    /// Of an RMS norm that stays f32.
    RmsNorm = "fireq::rms_norm::Params" {
        /// `f32[rows, stride]`.
        x: DevicePtr,
        /// `[cols]` in the weight's format.
        weight: DevicePtr,
        /// `f32[rows, runs·cols]`.
        out: DevicePtr,
        /// Numbers from one row of `x` to the next.
        stride: u32,
        /// Norms of a row.
        runs: u32,
        /// Added to the mean of squares.
        eps: f32,
    }
    /// Of an RMS norm that is quantized.
    NormQuantize = "fireq::norm_quantize::Params" {
        /// `f32[rows, cols]`.
        x: DevicePtr,
        /// `[cols]` in the weight's format.
        weight: DevicePtr,
        /// `e4m3[rows, cols]`.
        codes: DevicePtr,
        /// `f32[rows]`.
        scales: DevicePtr,
        /// Added to the mean of squares.
        eps: f32,
    }
    /// Of the quantization of rows.
    Quantize = "fireq::quantize::Params" {
        /// `f32[rows, cols]`.
        x: DevicePtr,
        /// `e4m3[rows, cols]`.
        codes: DevicePtr,
        /// `f32[rows]`.
        scales: DevicePtr,
    }
    /// Of silu(gate)·up, quantized.
    SwigluQuantize = "fireq::swiglu_quantize::Params" {
        /// `f32[rows, 2·cols]`: gate, then up.
        x: DevicePtr,
        /// `e4m3[rows, cols]`.
        codes: DevicePtr,
        /// `f32[rows]`.
        scales: DevicePtr,
    }
    /// Of an element-wise operation.
    Elementwise = "fireq::elementwise::Params" {
        /// `f32[rows, cols]`.
        a: DevicePtr,
        /// `f32[rows, cols]`, or a vector of `cols` in its own format.
        b: DevicePtr,
        /// `f32[rows, cols]`.
        out: DevicePtr,
        /// `rows · cols`.
        elements: u64,
    }
    /// Of the table of cosines and sines.
    RopeTable = "fireq::rope_table::Params" {
        /// `i32[tokens]`.
        positions: DevicePtr,
        /// `f32[head/2]`.
        inv_freq: DevicePtr,
        /// `f32[tokens, head]`.
        table: DevicePtr,
        /// Rows of the table.
        tokens: u32,
    }
    /// Of what stands between projections and attention.
    Qkv = "fireq::qkv::Params" {
        /// `f32[tokens, q_stride]`, from the first query channel on.
        q: DevicePtr,
        /// `f32[tokens, k_stride]`, from the first key channel on.
        k: DevicePtr,
        /// `f32[tokens, v_stride]`, from the first value channel on.
        v: DevicePtr,
        /// `f32[tokens, head]`: cosines, then sines.
        table: DevicePtr,
        /// `f32[q_heads·head]` that rotated queries are multiplied with, or 0.
        q_scale: DevicePtr,
        /// `f32[q_heads·head]` that is added then, or 0.
        q_shift: DevicePtr,
        /// `f32[kv_heads·head]` that rotated keys are multiplied with, or 0.
        k_scale: DevicePtr,
        /// `f32[kv_heads·head]` that is added then, or 0.
        k_shift: DevicePtr,
        /// `e4m3[tokens, q_heads·head]`.
        q_codes: DevicePtr,
        /// `f32[tokens, q_heads]`.
        q_scales: DevicePtr,
        /// `i4[context, kv_heads·head]`, two to a byte, low nibble first.
        k_codes: DevicePtr,
        /// `[context, kv_heads]` in the cache's scale format.
        k_scales: DevicePtr,
        /// As for keys.
        v_codes: DevicePtr,
        /// As for keys.
        v_scales: DevicePtr,
        /// `e4m3[context, kv_heads·head]`: dequantized keys for prefill, or 0.
        k_workspace: DevicePtr,
        /// `e4m3[kv_heads·head, workspace_stride]`: dequantized values, transposed, each sixteen positions in the order of
        /// [`crate::cuda::value_position`], or 0.
        v_workspace: DevicePtr,
        /// Positions from one channel to the next: a multiple of 16.
        workspace_stride: u32,
        /// Numbers from one row of `q` to the next.
        q_stride: u32,
        /// Numbers from one row of `k` to the next.
        k_stride: u32,
        /// Numbers from one row of `v` to the next.
        v_stride: u32,
        /// Positions before this step.
        past: u32,
        /// Positions of this step.
        tokens: u32,
    }
    /// Of a product with float weights.
    Logits = "fireq::logits::Params" {
        /// `f32[tokens, cols]`.
        x: DevicePtr,
        /// `[channels, cols]` in the weight's format.
        weight: DevicePtr,
        /// `f32[tokens, channels]`.
        out: DevicePtr,
        /// Rows of `x`.
        tokens: u32,
        /// Rows of the weight.
        channels: u32,
    }
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
        /// `f32[channels]`.
        channel_scales: DevicePtr,
        /// `f32[channels]` of a bias or `f32[tokens, channels]` of a residual, where the epilogue adds one.
        addend: DevicePtr,
        /// `f32[tokens, channels]`.
        out: DevicePtr,
        /// Rows of `x`.
        tokens: u32,
        /// Rows of the weight.
        channels: u32,
        /// Columns of the weight in units of 128, rounded up.
        steps: u32,
        /// Token tiles of a band: [`crate::cuda::LinearFp8Config::band`].
        band: u32,
    }
    /// Of attention over FP8 keys and values.
    Prefill = "fireq::prefill::Params" {
        /// `e4m3[tokens, heads, head]`, as [`crate::cuda::Prefill::q`] describes it.
        q: TensorMap,
        /// `e4m3[positions, kv_heads, head]`, as [`crate::cuda::Prefill::k`] describes it.
        k: TensorMap,
        /// `e4m3[kv_heads, head, positions]`, as [`crate::cuda::Prefill::v`] describes it.
        v: TensorMap,
        /// [`Queries`] of each CTA in x, as [`crate::cuda::prefill_tiles`] has them, or 0: of a single sequence.
        tiles: DevicePtr,
        /// `f32[tokens, heads]`.
        q_scales: DevicePtr,
        /// `[tokens, heads·head]`, f32 or bf16.
        out: DevicePtr,
        /// The attention's scale times log2(e).
        factor: f32,
        /// Queries of the single sequence.
        tokens: u32,
        /// Keys before its first query's own.
        past: u32,
        /// Query heads.
        heads: u32,
        /// Query heads of a kv head.
        repeats: u32,
    }
    /// Queries of a CTA, in memory: some of one sequence's, in a row.
    Queries = "fireq::prefill::Queries" {
        /// The first, of all rows of queries.
        first: u32,
        /// How many; at least 1.
        count: u32,
        /// Keys before the first query's own.
        past: u32,
        /// The position in the workspace of the sequence's first key.
        key: u32,
    }
    /// Of the choice of a token.
    Sample = "fireq::sample::Params" {
        /// `f32[rows, cols]`, finite.
        x: DevicePtr,
        /// [`Draw`] of each row.
        draws: DevicePtr,
        /// `i32[rows]`.
        index: DevicePtr,
    }
    /// What decides the token of a row, in memory: the largest logit where all is zero.
    Draw = "fireq::sample::Draw" {
        /// Of the noise.
        seed: u64,
        /// How much of the probability is kept, in units of 2⁻⁶⁴; 0 keeps every token.
        mass: u64,
        /// Of the noise: tokens of one sequence have steps of their own.
        step: u32,
        /// What logits are multiplied with: log2(e) over the temperature; 0 takes the largest.
        scale: f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_fields_at_their_offsets() {
        let params = RmsNorm { x: 0x1122, weight: 3, out: 5, stride: 7, runs: 11, eps: 1.0 };
        let bytes = params.bytes();
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[..2], [0x22, 0x11]);
        assert_eq!((bytes[8], bytes[16], bytes[24], bytes[28]), (3, 5, 7, 11));
        assert_eq!(bytes[32..36], 1.0f32.to_le_bytes());
    }
}
