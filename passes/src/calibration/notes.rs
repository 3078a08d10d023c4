//! What passes note while they look at values: for reports.

use std::sync::{MutexGuard, PoisonError};

use fireq_ir::Graph;

use super::{Calibration, Sequences};
use crate::findings::{Block, Refused};
use crate::random::tokens;

/// What was found out, and about which block findings are now.
#[derive(Default)]
pub(super) struct Notes {
    blocks: Vec<Block>,
    /// About the graph as a whole.
    whole: Option<Block>,
    current: Option<usize>,
    walks: usize,
}

impl Notes {
    fn current(&mut self) -> &mut Block {
        match self.current.and_then(|n| self.blocks.get_mut(n)) {
            Some(block) => block,
            None => self.whole.get_or_insert_with(|| Block::unmeasured("model")),
        }
    }
}

impl Calibration {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What passes found out, block by block, and then about the graph as a whole.
    pub fn findings(&self) -> Vec<Block> {
        let notes = self.notes();
        notes.blocks.iter().chain(&notes.whole).cloned().collect()
    }

    /// The number of the walk over blocks that begins.
    pub(crate) fn walk(&self) -> usize {
        let mut notes = self.notes();
        notes.walks += 1;
        notes.walks
    }

    /// From here on findings are about block `n`, and add to those of earlier walks.
    pub(crate) fn begin(&self, n: usize, name: &str) {
        let mut notes = self.notes();
        if n == notes.blocks.len() {
            notes.blocks.push(Block { name: name.into(), ..Block::default() });
        }
        notes.current = Some(n);
    }

    /// Takes what an earlier run found out about block `n`.
    pub(crate) fn restore(&self, n: usize, block: Block) {
        self.begin(n, "");
        self.note(|current| *current = block);
    }

    /// From here on findings are about the graph as a whole.
    pub(crate) fn end(&self) {
        self.notes().current = None;
    }

    /// Notes something about the block that is worked on, or about the graph as a whole where none is.
    pub(crate) fn note(&self, write: impl FnOnce(&mut Block)) {
        write(self.notes().current());
    }

    /// What was found out about the block that is worked on.
    pub(crate) fn current(&self) -> Block {
        self.notes().current().clone()
    }

    /// Notes that a site is left alone, and why. Passes run until nothing changes: the same is noted once.
    pub(crate) fn refuse(&self, site: &str, reason: impl Into<String>) {
        let refused = Refused { site: site.into(), reason: reason.into() };
        let mut notes = self.notes();
        let known = notes.blocks.iter().chain(&notes.whole).any(|block| block.refused.contains(&refused));
        if !known {
            notes.current().refused.push(refused);
        }
    }

    /// How many sequences passes were shown, and the tokens of the longest, as inputs of `graph`.
    pub fn extent(&self, graph: &Graph) -> (usize, usize) {
        match &*self.sequences.lock().unwrap_or_else(PoisonError::into_inner) {
            Sequences::Given(given) => {
                (given.len(), given.iter().map(|inputs| tokens(graph, inputs)).max().unwrap_or(0))
            }
            _ => (0, 0),
        }
    }
}
