//! Graphs to look at: `fireq inspect --dot` and `--html`.
//!
//! The page is one file without a network: the states of a graph from pass to pass, laid out block by block. What a node
//! is in one state is stored once for all the states in which it is that; nodes are followed by their [`ValueId`].

mod dot;
mod layers;
mod model;
mod stats;

pub use dot::dot;
pub(crate) use layers::number;

use fireq_ir::Graph;
#[allow(unused_imports, reason = "named in the documentation")]
use fireq_ir::ValueId;

use crate::page::{self, Parts};

/// A graph at one point of a pipeline.
pub struct State {
    /// The pass that made it what it is; `import` for the first.
    pub title: String,
    /// The graph.
    pub graph: Graph,
    /// The patches that the pass applied, with their notes.
    pub patches: Vec<fireq_ir::Applied>,
}

/// The page that shows `states` in order. With `statistics`, those of constants with data, and for small models of all
/// other values, on random inputs.
pub fn page(states: &[State], statistics: bool) -> String {
    let name = states.first().map_or("", |state| state.graph.name.as_str());
    let parts =
        Parts { body: include_str!("page.html"), css: include_str!("page.css"), js: include_str!("page.js") };
    page::page(&parts, name, &model::encode(states, statistics))
}
