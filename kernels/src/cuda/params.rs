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

mod attention;
mod products;

pub use attention::{Combine, DecodeAttention, GatherPages, Prefill, Qkv, Queries, Run};
pub use products::{DecodeWeight, Linear, LinearFp8};

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
        /// `e4m3[rows, cols]`, rows [`pitch`](crate::layout::pitch) apart.
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
        /// `e4m3[rows, cols]`, rows [`pitch`](crate::layout::pitch) apart.
        codes: DevicePtr,
        /// `f32[rows]`.
        scales: DevicePtr,
    }
    /// Of silu(gate)·up, quantized.
    SwigluQuantize = "fireq::swiglu_quantize::Params" {
        /// `f32[rows, 2·cols]`: gate, then up.
        x: DevicePtr,
        /// `e4m3[rows, cols]`, rows [`pitch`](crate::layout::pitch) apart.
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
    /// Of a product with float weights, or with E4M3 ones.
    Logits = "fireq::logits::Params" {
        /// `f32[tokens, cols]`.
        x: DevicePtr,
        /// `[channels, cols]` in the weight's format.
        weight: DevicePtr,
        /// `f32[channels]`, of E4M3 weights; not read for others.
        scales: DevicePtr,
        /// `f32[tokens, channels]`.
        out: DevicePtr,
        /// Rows of `x`.
        tokens: u32,
        /// Rows of the weight.
        channels: u32,
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
