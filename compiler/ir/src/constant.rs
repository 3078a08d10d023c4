//! Data of constants: inline, mapped from a file, or elided.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that live as long as someone holds them: a mapped file, or a vector.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The data of a constant, little endian, in the dtype that its type declares.
#[derive(Clone)]
pub enum ConstData {
    /// Bytes `range` of a mapped file or a vector.
    Bytes {
        /// Where the bytes live.
        owner: SharedBytes,
        /// Which of them belong to the constant.
        range: Range<usize>,
    },
    /// Left out of the text this graph came from; the hash, if it was printed, is kept.
    Elided {
        /// The hash that stood in the text.
        hash: Option<Arc<str>>,
    },
}

impl ConstData {
    /// A constant that owns `values`.
    pub fn from_f32(values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let range = 0..bytes.len();
        ConstData::Bytes { owner: Arc::new(bytes), range }
    }

    /// The bytes, unless they were elided or the range lies outside their owner.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            ConstData::Bytes { owner, range } => (**owner).as_ref().get(range.clone()),
            ConstData::Elided { .. } => None,
        }
    }

    /// The first 16 hex digits of the BLAKE3 hash of the bytes, or what the text said.
    pub fn hash(&self) -> Option<Arc<str>> {
        match self {
            ConstData::Bytes { .. } => Some(blake3::hash(self.bytes()?).to_hex()[..16].into()),
            ConstData::Elided { hash } => hash.clone(),
        }
    }
}

impl fmt::Debug for ConstData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConstData::Bytes { range, .. } => write!(f, "Bytes({range:?})"),
            ConstData::Elided { hash } => write!(f, "Elided({hash:?})"),
        }
    }
}
