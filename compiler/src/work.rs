//! What a step has to do, whatever does it: operations of products and of attention, and bytes that are read at least.

use std::collections::BTreeSet;

use fireq_ir::Dim;
use fireq_ir::plan::{BufferId, Kernel, Launch, Place, Plan};
use serde::Serialize;

use crate::compile::sizes;

/// What a plan's steps have to do, by their sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiplications and additions of products, for each token.
    pub of_token: f64,
    /// Those of logits, for each row that is wanted.
    pub of_selected: f64,
    /// Those of attention, for each key that a token sees.
    pub of_key: f64,
    /// Bytes of weights that every step reads.
    pub weights: f64,
    /// Bytes of the cache for each key.
    pub cache: f64,
}

/// What a step, or several, had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Amount {
    /// Multiplications and additions of products.
    pub products: f64,
    /// Those of attention under its causal mask.
    pub attention: f64,
    /// Bytes of weights and of caches that are read at least.
    pub bytes: f64,
}

/// The tokens of a sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Those before the step.
    pub past: usize,
    /// Those in it.
    pub tokens: usize,
    /// Those of them whose logits are wanted.
    pub selected: usize,
}

impl Work {
    /// That of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut work = Work { cache: sizes(plan).cache_per_token as f64, ..Work::default() };
        let mut read: BTreeSet<BufferId> = BTreeSet::new();
        for launch in &plan.launches {
            if let Kernel::Attention { .. } = launch.kernel {
                work.of_key += 4.0 * cols(plan, launch.inputs[0]);
            }
            if let Some(operations) = product(plan, launch) {
                let rows = plan.buffers[launch.output].ty.shape.rows();
                let of = if rows == Dim::sym("L") { &mut work.of_selected } else { &mut work.of_token };
                *of += operations;
            }
            // Of a table only a row for each token is read.
            if launch.kernel != Kernel::Gather {
                read.extend(&launch.inputs);
            }
        }
        work.weights = read.into_iter().map(|buffer| stored(plan, buffer)).sum();
        work
    }

    /// What a step of these tokens has to do.
    pub fn step(&self, pieces: impl IntoIterator<Item = Tokens>) -> Amount {
        let mut amount = Amount { bytes: self.weights, ..Amount::default() };
        for Tokens { past, tokens, selected } in pieces {
            let [past, tokens, selected] = [past, tokens, selected].map(|n| n as f64);
            amount.products += self.of_token * tokens + self.of_selected * selected;
            amount.attention += self.of_key * (tokens * past + tokens * (tokens + 1.0) / 2.0);
            amount.bytes += self.cache * (past + tokens);
        }
        amount
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.products += other.products;
        self.attention += other.attention;
        self.bytes += other.bytes;
    }
}

/// Operations of a product for each of its rows; none where a launch is none.
fn product(plan: &Plan, launch: &Launch) -> Option<f64> {
    let products = matches!(
        launch.kernel,
        Kernel::Linear | Kernel::LinearBias | Kernel::LinearAdd | Kernel::LinearSwiglu { .. }
    );
    let weight = *launch.inputs.get(1).filter(|_| products)?;
    let rows = plan.buffers[weight].ty.shape.rows().fixed()?;
    Some(2.0 * rows as f64 * cols(plan, weight))
}

fn cols(plan: &Plan, buffer: BufferId) -> f64 {
    plan.buffers[buffer].ty.shape.cols().fixed().unwrap_or(0) as f64
}

/// Bytes of a weight as it is stored; 0 for what is none.
fn stored(plan: &Plan, buffer: BufferId) -> f64 {
    let buffer = &plan.buffers[buffer];
    let Place::Weight(_) = buffer.place else { return 0.0 };
    buffer.stored().iter().map(|bytes| *bytes as f64).sum()
}

#[cfg(test)]
mod tests {
    use fireq_ir::plan::lower_fused;

    use super::*;
    use crate::import::ImportOptions;
    use crate::shapes::import_named;

    #[test]
    fn a_llama_3_has_the_work_that_its_sizes_say() {
        let mut graph = import_named("llama3-8b", ImportOptions::default(), false).unwrap().graph;
        fireq_passes::pipeline("full").unwrap().run(&mut graph).unwrap();
        let work = Work::of(&lower_fused(&graph).unwrap().plan);
        let block = 4096.0 * (4096.0 + 2.0 * 1024.0 + 4096.0 + 3.0 * 14336.0);
        let head = 128_256.0 * 4096.0;
        assert_eq!(work.of_token, 32.0 * 2.0 * block);
        assert_eq!((work.of_selected, work.of_key), (2.0 * head, 32.0 * 4.0 * 4096.0));
        // INT4 with a byte of scale for 128 of them, and a bf16 head.
        let least = 32.0 * block * (0.5 + 1.0 / 128.0) + 2.0 * head;
        assert!((1.0..1.01).contains(&(work.weights / least)), "{}", work.weights / least);
        // Codes of half a byte and a scale for each head, for keys and values.
        assert_eq!(work.cache, 32.0 * 2.0 * (1024.0 / 2.0 + 8.0));
        let step = work.step([Tokens { past: 10, tokens: 3, selected: 1 }; 2]);
        assert_eq!(step.products, 2.0 * (3.0 * work.of_token + work.of_selected));
        assert_eq!(step.attention, 2.0 * (11.0 + 12.0 + 13.0) * work.of_key);
        assert_eq!(step.bytes, work.weights + 26.0 * work.cache);
    }
}
