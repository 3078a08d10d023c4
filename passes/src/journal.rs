//! What a walk over blocks leaves behind, so that one that was cut short goes on where it ended.

use fireq_ir::Graph;
use fireq_ir::interp::Tensor;

use crate::calibration::RunError;
use crate::findings;

/// A block that passes are done with.
#[derive(Clone)]
pub struct Finished {
    /// What it became, with those constants that are new; `None` where nothing was changed.
    pub graph: Option<Graph>,
    /// What was found out.
    pub findings: findings::Block,
}

/// Where an earlier walk ended.
#[derive(Default)]
pub struct Resumed {
    /// The first blocks, in order.
    pub finished: Vec<Finished>,
    /// The streams behind the last of them.
    pub streams: Vec<Tensor>,
}

/// Keeps what a walk has done, and is told how far it is. A walk is known by a text.
pub trait Journal: Send + Sync {
    /// What is left of an earlier walk over the same graph, on the same data; nothing where it is not to be continued.
    fn resume(&self, walk: &str) -> Resumed;
    /// Keeps a block and the streams behind it. Returns the block with constants that need little memory.
    fn keep(
        &self,
        walk: &str,
        block: usize,
        finished: Finished,
        streams: &[&Tensor],
    ) -> Result<Finished, RunError>;
    /// Parameters of weights that are done, of how many, and which pass is at work on which block.
    fn tell(&self, done: u64, all: u64, at: (&str, &str));
}

/// Keeps everything in memory, and says nothing.
pub(crate) struct Forgetful;

impl Journal for Forgetful {
    fn resume(&self, _: &str) -> Resumed {
        Resumed::default()
    }

    fn keep(&self, _: &str, _: usize, finished: Finished, _: &[&Tensor]) -> Result<Finished, RunError> {
        Ok(finished)
    }

    fn tell(&self, _: u64, _: u64, _: (&str, &str)) {}
}
