//! What each site does to the predictions on a text.

use rayon::prelude::*;

use fireq_ir::Graph;

use super::{BySiteError, Engines, Site};
use crate::engine::{Engine, EngineError};
use crate::evaluate::{Score, Window, divergence, log_softmax, windows};

/// The text to predict.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// What stands in front of each window.
    pub start: Option<u32>,
    /// The tokens.
    pub ids: &'a [u32],
    /// Tokens of a window.
    pub ctx: usize,
}

/// How far a site moves the predictions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Harm {
    /// Mean KL divergence from the unquantized model in nats, less that of the site that it needs.
    pub kl: f64,
    /// Perplexity of the model with the site quantized.
    pub perplexity: f64,
    /// By which share it is above that of the unquantized model, or of the site that it needs.
    pub rise: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Of the unquantized model.
    pub reference: Score,
    /// Of each site, in their order.
    pub harms: Vec<Harm>,
}

/// Bytes of the unquantized model's logits that are kept for the sites; those of one window at least.
const KEPT: usize = 1 << 28;

/// Compares the model with each site quantized to the model itself. `done` hears how many tokens a run has put behind.
pub fn measure(
    model: &Graph,
    sites: &[Site],
    engines: &Engines,
    text: Text<'_>,
    done: impl FnMut(usize),
) -> Result<Measured, BySiteError> {
    let windows: Vec<Window> = windows(text.start, text.ids, text.ctx).collect();
    let together = KEPT / (size_of::<f32>() * engines.vocab() * text.ctx).max(1);
    in_batches(model, sites, engines, windows.chunks(together.max(1)), done)
}

fn in_batches<'a>(
    model: &Graph,
    sites: &[Site],
    engines: &Engines,
    batches: impl Iterator<Item = &'a [Window]>,
    mut done: impl FnMut(usize),
) -> Result<Measured, BySiteError> {
    let mut reference = engines.engine(model.clone())?;
    let (mut own, mut all) = (Sums::default(), vec![Sums::default(); sites.len()]);
    for batch in batches {
        let kept = keep(&mut reference, batch, &mut own)?;
        done(tokens(batch));
        for (site, sums) in sites.iter().zip(&mut all) {
            compare(&mut engines.engine(site.graph()?)?, batch, &kept, sums)?;
            done(tokens(batch));
        }
    }
    let harm = |(site, sums): (&Site, &Sums)| sums.beyond(site.upon.map_or(&own, |n| &all[n]));
    let harms = sites.iter().zip(&all).map(harm).collect();
    Ok(Measured { reference: own.score, harms })
}

/// Sums over predicted tokens.
#[derive(Clone, Copy, Default)]
struct Sums {
    score: Score,
    kl: f64,
}

impl Sums {
    fn add(&mut self, (nll, kl): (f64, f64)) {
        self.score.tokens += 1;
        self.score.nll += nll;
        self.kl += kl;
    }

    /// What these add to those of `without`.
    fn beyond(&self, without: &Sums) -> Harm {
        let perplexity = self.score.perplexity();
        Harm {
            kl: (self.kl - without.kl) / self.score.tokens as f64,
            perplexity,
            rise: perplexity / without.score.perplexity() - 1.0,
        }
    }
}

fn tokens(windows: &[Window]) -> usize {
    windows.iter().map(Window::count).sum()
}

/// The logits of each step of each window, and their score.
fn keep(reference: &mut Engine, windows: &[Window], own: &mut Sums) -> Result<Vec<Vec<f32>>, EngineError> {
    let mut kept = vec![];
    for window in windows {
        reference.reset();
        for (inputs, targets) in window.steps() {
            let logits = reference.logits(inputs)?;
            judge(&logits, &logits, targets, own);
            kept.push(logits);
        }
    }
    Ok(kept)
}

/// Adds up how a model differs from the logits that were kept.
fn compare(
    model: &mut Engine,
    windows: &[Window],
    kept: &[Vec<f32>],
    sums: &mut Sums,
) -> Result<(), EngineError> {
    let mut kept = kept.iter();
    for window in windows {
        model.reset();
        for ((inputs, targets), expected) in window.steps().zip(&mut kept) {
            judge(&model.logits(inputs)?, expected, targets, sums);
        }
    }
    Ok(())
}

/// Rows are looked at by all threads and added in their order.
fn judge(logits: &[f32], expected: &[f32], targets: &[u32], sums: &mut Sums) {
    let vocab = logits.len() / targets.len();
    let row = |((ours, expected), target): ((&[f32], &[f32]), &u32)| {
        let (ours, expected) = (log_softmax(ours), log_softmax(expected));
        (-ours[*target as usize], divergence(&expected, &ours))
    };
    let rows = logits.par_chunks(vocab).zip(expected.par_chunks(vocab)).zip(targets);
    rows.map(row).collect::<Vec<_>>().into_iter().for_each(|row| sums.add(row));
}

#[cfg(test)]
mod tests {
    use fireq_ir::artifact::ModelFacts;
    use fireq_ir::{ConstData, DType, Dim, Op, Shape, Type};

    use super::*;
    use crate::by_site::sites;

    const VOCAB: usize = 8;

    /// Gathers, multiplies by two weights one after the other, and selects.
    fn model() -> Graph {
        let mut graph = Graph::new("lm");
        let indices = |dim: &str| Type::plain(DType::I32, Shape(vec![Dim::sym(dim)]));
        let [tokens, _, select] =
            [("tokens", "T"), ("positions", "T"), ("select", "L")].map(|(n, d)| graph.input(n, indices(d)));
        let mut weight = |name: &str, rows: usize| {
            let values: Vec<f32> = (0..rows * 32).map(|i| ((i * i + rows) as f32).sin()).collect();
            let ty = Type::plain(DType::F32, Shape::matrix(rows, 32usize));
            graph.constant(name, ty, ConstData::from_f32(&values))
        };
        let [table, first, last] =
            [("table", VOCAB), ("layers.0.w", 32), ("head", VOCAB)].map(|(n, r)| weight(n, r));
        let x = graph.add(Op::Gather, &[table, tokens]).unwrap();
        let x = graph.add(Op::Linear, &[x, first]).unwrap();
        let x = graph.add(Op::Gather, &[x, select]).unwrap();
        let logits = graph.add(Op::Linear, &[x, last]).unwrap();
        graph.outputs.push(logits);
        graph
    }

    #[test]
    fn windows_may_be_measured_in_any_number_of_batches() {
        let model = model();
        let pipeline = fireq_passes::pipeline("quantize-weights,quantize-activations").unwrap();
        let sites = sites(&model, pipeline).unwrap();
        let named = sites.iter().map(|s| (&*s.name, s.layer, s.upon)).collect::<Vec<_>>();
        let expected = [("layers.0.w", Some(0), None), ("head", None, None)];
        assert_eq!(
            named,
            [&expected[..], &[("layers.0.w", Some(0), Some(0)), ("head", None, Some(1))]].concat()
        );
        let facts = ModelFacts { context: 16, vocab: VOCAB, bos: None, eos: vec![] };
        let engines = Engines::interpreted(&facts, 5);
        let ids: Vec<u32> = (0..23).map(|n| n * 5 % VOCAB as u32).collect();
        let windows: Vec<Window> = windows(Some(1), &ids, 5).collect();
        let measured = |together| {
            let mut heard = 0;
            let batches = windows.chunks(together);
            let found = in_batches(&model, &sites, &engines, batches, |tokens| heard += tokens).unwrap();
            assert_eq!(heard, ids.len() * (1 + sites.len()));
            found
        };
        let whole = measured(usize::MAX);
        assert_eq!(whole.reference.tokens, ids.len());
        assert!(whole.harms[..2].iter().all(|harm| harm.kl > 1e-6), "{whole:?}");
        assert_eq!((measured(1), measured(2)), (whole.clone(), whole));
    }
}
