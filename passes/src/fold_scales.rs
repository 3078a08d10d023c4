//! `fold-scales`: diagonal scales move to where they cost nothing at run time.
//!
//! Contract: a `scale` by constants moves through linears, norms, biases, SiLU(gate)·up, the values of attention with
//! their cache, and rope, up towards producers or down towards consumers, until it meets a constant that takes it; what
//! meets none stays where it costs least. It passes rope only when it is equal on both channels of each pair, attention
//! only when it is equal in all query heads of a kv head, and a norm per head only when it is equal in all heads. Codes
//! take no scale. Fires when a block gets cheaper (fewer multiplications at run time; then, fewer elements of constants
//! to compute, where rows of a producer count less than columns of a consumer). Since the next step reads what this one
//! appends, a scaled cache is scaled from its first row on. Products are rounded to f32. Reassociates.
//!
//! The search is in an e-graph, one block between sums of the residual stream at a time: see `scales`. `--explain`
//! prints which rules moved each scale.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="norm", data=[1.0, 2.0, 1.0, 2.0]} : f32[4]
//!   %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,4]
//!   %3 = const {name="s", data=[0.5, 0.25, 1.0, 2.0]} : f32[4]
//!   %4 = scale %2, %3 : f32[T,4]
//!   %5 = const {name="w"} : bf16[8,4]
//!   %6 = linear %4, %5 : f32[T,8]
//!   return %6
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("fold-scales").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="norm.scaled", data=[0.5, 0.5, 1.0, 4.0]} : f32[4]
//!   %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,4]
//!   %3 = const {name="w"} : bf16[8,4]
//!   %4 = linear %2, %3 : f32[T,8]
//!   return %4
//! }
//! "#);
//! ```

use fireq_ir::{Effect, Graph, Pass, PassError, Patch};

use crate::error::PipelineError;
use crate::options::Options;
use crate::scales::fold;

/// The pass with its option.
pub(crate) struct FoldScales {
    /// E-nodes at which the search in a block stops.
    nodes: usize,
}

impl FoldScales {
    /// The pass with `nodes`.
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        Ok(FoldScales { nodes: options.number("nodes")? })
    }
}

impl Pass for FoldScales {
    fn id(&self) -> &'static str {
        "fold-scales"
    }

    fn effect(&self) -> Effect {
        Effect::Reassociates
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        Ok(fold(graph, self.nodes, false)?)
    }

    fn run_explained(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        Ok(fold(graph, self.nodes, true)?)
    }
}
