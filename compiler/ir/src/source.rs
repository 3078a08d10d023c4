//! Where the data of constants is read from.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{ConstData, Graph};

/// Bytes that live as long as someone holds them: a mapped file, or a vector.
pub type SharedBytes = Arc<dyn ByteSource>;

/// Where bytes of constants live.
pub trait ByteSource: Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];

    /// Says that `range` is not needed soon: a mapped file gives the memory back and reads it again when asked.
    fn release(&self, _range: Range<usize>) {}

    /// The file that the bytes are read from, if it is no longer what it was when it was opened.
    fn changed(&self) -> Option<PathBuf> {
        None
    }
}

impl ByteSource for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Rows that are made when they are asked for: what a file holds in another order, or as other codes, stays as it is there.
pub trait RowSource: Send + Sync {
    /// How many there are.
    fn rows(&self) -> usize;

    /// Bytes of a row.
    fn row_bytes(&self) -> usize;

    /// Some of them as a constant of these rows alone would hold them: numbers, or codes and then scales, level by level.
    fn decode(&self, rows: Range<usize>) -> Vec<u8>;

    /// What tells the data from other data: 16 hex digits that depend on every byte it is made of.
    fn hash(&self) -> Arc<str>;

    /// What rows are made of.
    fn parts(&self) -> Vec<&ConstData>;
}

/// All that the constants of a graph are read from.
#[derive(Clone, Default)]
pub struct Sources(Vec<SharedBytes>);

impl Sources {
    /// Those of a graph.
    pub fn of(graph: &Graph) -> Self {
        let mut sources = Sources::default();
        graph.constants.values().for_each(|data| sources.add(data));
        sources
    }

    fn add(&mut self, data: &ConstData) {
        match data {
            // Constants of a file follow each other nearly always.
            ConstData::Bytes { owner, .. } if !self.0.iter().rev().any(|known| Arc::ptr_eq(known, owner)) => {
                self.0.push(owner.clone());
            }
            ConstData::Decoded { source, .. } => source.parts().into_iter().for_each(|part| self.add(part)),
            ConstData::Bytes { .. } | ConstData::Elided { .. } => {}
        }
    }

    /// The first file that is no longer what it was when it was opened.
    pub fn changed(&self) -> Option<PathBuf> {
        self.0.iter().find_map(|source| source.changed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Shape, Type};

    #[test]
    fn each_source_of_a_graph_is_asked_once() {
        struct Gone(Vec<u8>);
        impl ByteSource for Gone {
            fn bytes(&self) -> &[u8] {
                &self.0
            }
            fn changed(&self) -> Option<PathBuf> {
                Some("gone".into())
            }
        }
        let mut graph = Graph::new("g");
        let mut add = |name: &str, data| {
            graph.constant(name, Type::plain(DType::F32, Shape::matrix(1, 1)), data);
        };
        add("own", ConstData::from_f32(&[1.0]));
        add("unknown", ConstData::Elided { hash: None });
        assert_eq!(Sources::of(&graph).changed(), None);
        let file: SharedBytes = Arc::new(Gone(vec![0; 8]));
        let mut add = |name: &str, data| {
            graph.constant(name, Type::plain(DType::F32, Shape::matrix(1, 1)), data);
        };
        add("first", ConstData::shared(file.clone(), 0..4));
        add("second", ConstData::shared(file, 4..8));
        let sources = Sources::of(&graph);
        assert_eq!((sources.0.len(), sources.changed()), (2, Some("gone".into())));
    }
}
