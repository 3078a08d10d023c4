//! PTX types.

/// What the bits of a value mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bits,
    Unsigned,
    Signed,
    Float,
    Bfloat,
    E4m3,
    E5m2,
    Predicate,
}

/// A type: kind, bits of a value, and how many elements are packed into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    pub kind: Kind,
    pub bits: u32,
    pub packed: u32,
}

impl Type {
    /// Parses a name without its leading dot.
    pub fn parse(name: &str) -> Option<Self> {
        use Kind::{Bfloat, Bits, E4m3, E5m2, Float, Predicate, Signed, Unsigned};
        let plain = |kind, bits| Some(Self { kind, bits, packed: 1 });
        match name {
            "pred" => plain(Predicate, 1),
            "b8" => plain(Bits, 8),
            "b16" => plain(Bits, 16),
            "b32" => plain(Bits, 32),
            "b64" => plain(Bits, 64),
            "u8" => plain(Unsigned, 8),
            "u16" => plain(Unsigned, 16),
            "u32" => plain(Unsigned, 32),
            "u64" => plain(Unsigned, 64),
            "s8" => plain(Signed, 8),
            "s16" => plain(Signed, 16),
            "s32" => plain(Signed, 32),
            "s64" => plain(Signed, 64),
            "f16" => plain(Float, 16),
            "f32" => plain(Float, 32),
            "f64" => plain(Float, 64),
            "bf16" => plain(Bfloat, 16),
            "e4m3" => plain(E4m3, 8),
            "f16x2" => Some(Self { kind: Float, bits: 32, packed: 2 }),
            "bf16x2" => Some(Self { kind: Bfloat, bits: 32, packed: 2 }),
            "e4m3x2" => Some(Self { kind: E4m3, bits: 16, packed: 2 }),
            "e5m2x2" => Some(Self { kind: E5m2, bits: 16, packed: 2 }),
            _ => None,
        }
    }

    /// Bytes in memory.
    pub fn bytes(self) -> usize {
        self.bits as usize / 8
    }

    pub fn signed(self) -> bool {
        self.kind == Kind::Signed
    }

    /// Integer or untyped bits.
    pub fn integer(self) -> bool {
        matches!(self.kind, Kind::Bits | Kind::Unsigned | Kind::Signed)
    }
}
