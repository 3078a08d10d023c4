//! The type of a value: dtype × quantization scheme × shape.

use std::fmt;

use crate::{DType, Dim, Shape};

/// What one scale covers, along the last dimension of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Per {
    /// A whole row: a token of an activation, an output channel of a weight.
    Row,
    /// This many neighbouring elements of a row; the last group may be shorter.
    Group(usize),
}

/// One level of scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Level {
    /// What one scale covers.
    pub per: Per,
    /// The dtype in which the scale is stored.
    pub dtype: DType,
}

/// How codes become numbers: levels of scales, innermost first; none for plain tensors.
///
/// With levels σ (and an outer c) an element is `c · rn8(q·σ)` for I4 codes under an E4M3 σ, else `c · (q·σ)`.
/// Text form: `<g128:e4m3,row:f32>`. Source: FireQ sections 2, 3 and 6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scheme(pub Vec<Level>);

impl Scheme {
    /// No scales: the elements stand for themselves.
    pub const PLAIN: Scheme = Scheme(Vec::new());

    /// One scale of `dtype` per row.
    pub fn row(dtype: DType) -> Self {
        Scheme(vec![Level { per: Per::Row, dtype }])
    }

    /// One scale of `dtype` per group of `size` elements of a row.
    pub fn group(size: usize, dtype: DType) -> Self {
        Scheme(vec![Level { per: Per::Group(size), dtype }])
    }

    /// FireQ weights: E4M3 scales per group, under an F32 scale per output channel.
    pub fn weight(group: usize) -> Self {
        let mut scheme = Scheme::group(group, DType::E4M3);
        scheme.0.push(Level { per: Per::Row, dtype: DType::F32 });
        scheme
    }

    /// True when there are no scales.
    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// True when the scheme fits the codes: plain for numbers; for codes, one level, or groups under a row level.
    pub fn fits(&self, dtype: DType) -> bool {
        let scale_ok = |l: &Level| matches!(l.dtype, DType::F32 | DType::BF16 | DType::E4M3);
        let nonzero = |l: &Level| l.per != Per::Group(0);
        match self.0.as_slice() {
            [] => !dtype.is_code(),
            [one] => dtype.is_code() && scale_ok(one) && nonzero(one),
            [inner, outer] => {
                dtype.is_code()
                    && scale_ok(inner)
                    && nonzero(inner)
                    && matches!(inner.per, Per::Group(_))
                    && *outer == Level { per: Per::Row, dtype: DType::F32 }
            }
            _ => false,
        }
    }
}

impl Level {
    /// Elements that one scale covers in a row of `cols`.
    pub fn extent(self, cols: usize) -> usize {
        match self.per {
            Per::Row => cols.max(1),
            Per::Group(n) => n.max(1),
        }
    }

    /// Number of scales for a row of `cols`.
    pub fn count(self, cols: usize) -> usize {
        cols.div_ceil(self.extent(cols))
    }
}

/// The type of a value. Shape `[rows, cols]` or `[n]`; scales run along the last dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Scales that turn codes into numbers.
    pub scheme: Scheme,
    /// Dimensions, outermost first.
    pub shape: Shape,
}

impl Type {
    /// A type without scales.
    pub fn plain(dtype: DType, shape: Shape) -> Self {
        Type { dtype, scheme: Scheme::PLAIN, shape }
    }

    /// An f32 matrix, the type of every unquantized activation.
    pub fn f32(rows: impl Into<Dim>, cols: impl Into<Dim>) -> Self {
        Type::plain(DType::F32, Shape::matrix(rows, cols))
    }

    /// The same shape with another dtype and scheme.
    #[must_use]
    pub fn with_format(&self, format: &Format) -> Self {
        Type { dtype: format.dtype, scheme: format.scheme.clone(), shape: self.shape.clone() }
    }

    /// The dtype and scheme, without the shape.
    pub fn format(&self) -> Format {
        Format { dtype: self.dtype, scheme: self.scheme.clone() }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.dtype, self.scheme, self.shape)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, level) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "<" } else { "," })?;
            match level.per {
                Per::Row => write!(f, "row:{}", level.dtype)?,
                Per::Group(n) => write!(f, "g{n}:{}", level.dtype)?,
            }
        }
        f.write_str(if self.is_plain() { "" } else { ">" })
    }
}

/// A number format: a dtype with its scheme, the target of `quantize`. Text form `e4m3<row:f32>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Format {
    /// Element type.
    pub dtype: DType,
    /// Scales that turn codes into numbers.
    pub scheme: Scheme,
}

impl Format {
    /// FireQ activations: E4M3 with one F32 scale per token (section 3).
    pub fn activation() -> Self {
        Format { dtype: DType::E4M3, scheme: Scheme::row(DType::F32) }
    }

    /// FireQ queries: E4M3 with one F32 scale per token and head of `head_dim` (section 6).
    pub fn query(head_dim: usize) -> Self {
        Format { dtype: DType::E4M3, scheme: Scheme::group(head_dim, DType::F32) }
    }

    /// FireQ weights: I4 in groups with E4M3 scales, under an F32 scale per output channel (section 2).
    pub fn weight(group: usize) -> Self {
        Format { dtype: DType::I4, scheme: Scheme::weight(group) }
    }

    /// Weights of a head, the linear that gives logits: E4M3 with one F32 scale per output channel.
    pub fn head() -> Self {
        Format { dtype: DType::E4M3, scheme: Scheme::row(DType::F32) }
    }

    /// FireQ keys and values: I4 with one E4M3 scale per token and head of `head_dim` (section 6).
    pub fn kv(head_dim: usize) -> Self {
        Format { dtype: DType::I4, scheme: Scheme::group(head_dim, DType::E4M3) }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.scheme)
    }
}
