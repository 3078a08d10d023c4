//! Where scales of the inputs of linears go, and which are tried.

use std::sync::Arc;

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{Graph, Op, PassError, Patch, Ref, ValueId};

use super::sample::sample;
use super::size::Size;
use crate::glob::matches_any;
use crate::pattern::{Names, numbers};
use crate::piece::Piece;
use crate::quantize_weights::{Codes, has_codes};

/// A value and the linears that read it.
pub(crate) struct Site {
    pub x: ValueId,
    pub linears: Vec<ValueId>,
    /// Channels of a head, and query heads of a kv head, behind attention.
    heads: Option<(usize, usize)>,
}

/// λ for the channels of an input, and how it came about.
pub(crate) struct Lambda {
    pub form: &'static str,
    pub alpha: Option<f32>,
    pub scale: Vec<f32>,
}

impl Site {
    pub fn find(graph: &Graph, x: ValueId) -> Option<Site> {
        let cols = graph.ty(x).shape.cols().fixed()?;
        let heads = match *graph.op(x) {
            Op::RmsNorm { .. } if graph.ty(graph.operands(x)[1]).shape.cols().fixed() == Some(cols) => None,
            Op::Mul => None,
            Op::Attention { heads, kv_heads, .. } => Some((cols / heads, heads / kv_heads)),
            _ => return None,
        };
        let open = |linear: &ValueId| {
            let operands = graph.operands(*linear);
            *graph.op(*linear) == Op::Linear
                && operands[0] == x
                && graph.ty(operands[1]).scheme.is_plain()
                && *graph.op(operands[1]) != Op::Fence
        };
        let linears: Vec<ValueId> = graph.users(x).into_iter().filter(open).collect();
        (!linears.is_empty()).then_some(Site { x, linears, heads })
    }

    /// Why scales cannot go there. Where `codes` stay, the columns of their weights cannot change.
    pub fn refusal(&self, graph: &Graph, codes: Codes) -> Option<&'static str> {
        let held = |linear: &ValueId| has_codes(graph, graph.operands(*linear)[1]);
        if codes == Codes::Keep && self.linears.iter().any(held) {
            return Some("a weight that reads it keeps the codes that the checkpoint has");
        }
        let constant = |linear: &ValueId| is_constant(graph, graph.operands(*linear)[1]);
        let others = graph.users(self.x).len() > self.linears.len() || graph.outputs.contains(&self.x);
        if !self.linears.iter().all(constant) {
            return Some("a weight that reads the same input is no constant");
        }
        others.then_some("something else reads its input, too")
    }

    /// True where `keep` matches one of the weights.
    pub fn kept(&self, graph: &Graph, keep: &str) -> bool {
        let name = |linear: &ValueId| leaf_name(graph, graph.operands(*linear)[1]);
        self.linears.iter().any(|linear| matches_any(keep, &name(linear)))
    }

    /// `x` over λ, and weights times λ behind a fence.
    pub fn patch(&self, graph: &Graph, lambda: &[f32], names: &mut Names<'_>) -> Result<Patch, PassError> {
        let name = self.name(graph);
        let mut patch = Patch::new(&*name);
        let inverse: Vec<f32> = lambda.iter().map(|l| 1.0 / l).collect();
        let inverse = names.vector(&mut patch, &name, "smooth.x", &inverse);
        let x = patch.add(graph, Op::Scale, &[self.x.into(), inverse])?;
        self.scale_weights(&mut patch, graph, (x, lambda), names)?;
        Ok(patch)
    }

    /// What [`Site::patch`] comes to once scales are folded: behind attention, values are over λ before they are cached.
    pub fn trial(&self, graph: &Graph, lambda: &[f32]) -> Result<Patch, PassError> {
        let mut names = Names::new(graph);
        let (Some((head, repeats)), Some(append)) = (self.heads, graph.operands(self.x).get(2).copied())
        else {
            return self.patch(graph, lambda, &mut names);
        };
        let [cache, rows] = graph.operands(append)[..] else {
            return self.patch(graph, lambda, &mut names);
        };
        let mut patch = Patch::new(&*self.name(graph));
        let inverse: Vec<f32> =
            lambda.chunks(head * repeats).flat_map(|group| &group[..head]).map(|l| 1.0 / l).collect();
        let inverse = names.vector(&mut patch, "values", "smooth.x", &inverse);
        let rows = patch.add(graph, Op::Scale, &[rows.into(), inverse])?;
        let smooth = patch.add(graph, Op::KvAppend, &[cache.into(), rows])?;
        patch.replace(append, smooth);
        self.scale_weights(&mut patch, graph, (self.x.into(), lambda), &mut names)?;
        Ok(patch)
    }

    /// Linears that read `x` and have λ in their weights, behind a fence.
    fn scale_weights(
        &self,
        patch: &mut Patch,
        graph: &Graph,
        (x, lambda): (Ref, &[f32]),
        names: &mut Names<'_>,
    ) -> Result<(), PassError> {
        let lambda = names.vector(patch, &self.name(graph), "smooth", lambda);
        for linear in &self.linears {
            let scaled = patch.add(graph, Op::Scale, &[graph.operands(*linear)[1].into(), lambda])?;
            let fenced = patch.add(graph, Op::Fence, &[scaled])?;
            let smooth = patch.add(graph, Op::Linear, &[x, fenced])?;
            patch.replace(*linear, smooth);
        }
        Ok(())
    }

    /// `x`, what it is made of as far as 1/λ goes, and the linears with some of their output channels; and this site there.
    pub fn piece(&self, graph: &Graph) -> Result<(Piece, Site), PassError> {
        let mut piece = Piece::behind(graph, &[self.x], &[self.x]);
        let x = piece.copies[&self.x];
        piece.graph.outputs.clear();
        for (n, linear) in self.linears.iter().enumerate() {
            let weight = graph.operands(*linear)[1];
            let (ty, data) = sample(graph, weight)?;
            // Two may come from one weight.
            let name = format!("{}.{n}", leaf_name(graph, weight));
            let weight = piece.graph.constant(&name, ty, data);
            let linear = piece.graph.add(Op::Linear, &[x, weight]).expect("some rows fit where all did");
            piece.graph.outputs.push(linear);
        }
        let linears = piece.graph.outputs.clone();
        Ok((piece, Site { x, linears, heads: self.heads }))
    }

    /// Channels of the input.
    pub fn channels(&self, graph: &Graph) -> usize {
        graph.ty(self.x).shape.cols().fixed().unwrap_or(0)
    }

    /// The name of the first weight.
    pub fn name(&self, graph: &Graph) -> Arc<str> {
        leaf_name(graph, graph.operands(self.linears[0])[1])
    }

    /// The size of each column of the weights, over the rows of all of them.
    fn columns(&self, graph: &Graph, size: Size) -> Vec<f32> {
        let weight = |linear: &ValueId| numbers(graph, graph.operands(*linear)[1]).unwrap_or_default();
        let rows: Vec<f32> = self.linears.iter().flat_map(weight).collect();
        size.of(&rows, self.channels(graph))
    }

    /// What is tried for these inputs.
    pub fn candidates(&self, graph: &Graph, inputs: &[f32]) -> Vec<Lambda> {
        let means = Size::Mean.of(inputs, self.channels(graph));
        let [largest, mean] = [Size::Largest, Size::Mean].map(|size| self.columns(graph, size));
        let searched = ALPHAS.map(|alpha| Lambda {
            form: "mean|x|^alpha / max|w|^(1-alpha)",
            alpha: Some(alpha),
            scale: self.lambda(&means, &largest, alpha),
        });
        let paper = Lambda { form: "1 / mean|w|", alpha: None, scale: self.lambda(&means, &mean, 0.0) };
        searched.into_iter().chain([paper]).collect()
    }

    /// `mean|x|^α / max|w|^(1−α)` in units of its geometric mean; 1 where a channel has no inputs or no weights.
    fn lambda(&self, means: &[f32], columns: &[f32], alpha: f32) -> Vec<f32> {
        let alpha = f64::from(alpha);
        let log = |(mean, column): (&f32, &f32)| {
            let log = alpha * f64::from(*mean).ln() - (1.0 - alpha) * f64::from(*column).ln();
            (*mean > 0.0 && *column > 0.0).then_some(log)
        };
        let mut logs: Vec<Option<f64>> = means.iter().zip(columns).map(log).collect();
        if let Some((head, repeats)) = self.heads {
            logs.chunks_mut(head * repeats).for_each(|group| share(group, head));
        }
        let known: Vec<f64> = logs.iter().flatten().copied().collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        logs.iter().map(|log| log.map_or(1.0, |log| (log - mean).exp() as f32)).collect()
    }
}

/// How much of λ follows the input; the rest follows the weights.
const ALPHAS: [f32; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// The mean over query heads of each channel, in all of them.
fn share(group: &mut [Option<f64>], head: usize) {
    for channel in 0..head {
        let of: Vec<f64> = group.iter().skip(channel).step_by(head).flatten().copied().collect();
        let mean = (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64);
        group.iter_mut().skip(channel).step_by(head).for_each(|log| *log = mean);
    }
}
