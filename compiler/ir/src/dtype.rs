//! Element types.

use std::fmt;
use std::str::FromStr;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    BF16,
    /// FP8 with 4 exponent and 3 mantissa bits, finite, saturating at ±448.
    E4M3,
    /// Two's complement −8..7, packed two to a byte.
    I4,
    /// 32-bit signed integers: token ids, positions, row indices.
    I32,
}

/// Every element type, in print order.
pub const DTYPES: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::E4M3, DType::I4, DType::I32];

impl DType {
    /// The name used in text IR.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::E4M3 => "e4m3",
            DType::I4 => "i4",
            DType::I32 => "i32",
        }
    }

    /// Bits of one element.
    pub const fn bits(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 32,
            DType::F16 | DType::BF16 => 16,
            DType::E4M3 => 8,
            DType::I4 => 4,
        }
    }

    /// True for the dtypes whose values stand for themselves, without scales.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// True for the dtypes that hold quantization codes.
    pub const fn is_code(self) -> bool {
        matches!(self, DType::E4M3 | DType::I4)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        DTYPES.into_iter().find(|d| d.name() == text).ok_or_else(|| format!("unknown dtype `{text}`"))
    }
}
