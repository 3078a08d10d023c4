//! `smooth-linears`: scales on the inputs of linears, and their inverses in the columns of the weights, that make both
//! easier to round (FireQ section 4).
//!
//! Contract: where linears with plain constant weights read `x`, which a norm, SiLU(gate)·up or attention makes, `x` is
//! divided by λ, one for each channel, and columns of the weights are multiplied by it, behind a fence: `fold-scales` then
//! moves 1/λ into what makes `x`, and nothing moves λ back. λ is `mean|x|^α / max|w|^(1−α)`; behind attention it is equal in
//! all query heads of a kv head. α is the one of the least error of the graph's first output under nearest-integer weights
//! and INT4 caches, on calibration data. Fires when that error falls by 3 % or more, and once for each linear: a weight
//! behind a fence is left alone. Reassociates.
//!
//! ```
//! let text = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,64]
//!   %1 = const {name="norm"} : f32[64]
//!   %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,64]
//!   %3 = const {name="w"} : f32[8,64]
//!   %4 = linear %2, %3 : f32[T,8]
//!   return %4
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(text).unwrap();
//! let found = fireq_passes::pipeline("smooth-linears").unwrap().run(&mut graph).unwrap();
//! assert_eq!(found == 1, fireq_ir::text::print_graph(&graph).contains("fence"));
//! ```

mod lambda;

use std::sync::Arc;

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, ValueId};

use crate::calibration::Calibration;
use crate::findings::Smoothing;
use crate::options::Options;
use crate::pattern::Names;
use crate::piece::Piece;
use crate::smooth::sample::sample;
use crate::smooth::{Bench, best};

/// The pass.
pub(crate) struct SmoothLinears {
    calibration: Arc<Calibration>,
}

impl SmoothLinears {
    pub fn new(options: &Options) -> Self {
        SmoothLinears { calibration: options.calibration().clone() }
    }
}

impl Pass for SmoothLinears {
    fn id(&self) -> &'static str {
        "smooth-linears"
    }

    fn effect(&self) -> Effect {
        Effect::Reassociates
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let mut names = Names::new(graph);
        let sites = graph.schedule().into_iter().filter_map(|value| self.find(graph, value));
        sites.filter_map(|site| self.site(graph, &site, &mut names).transpose()).collect()
    }
}

/// A value and the linears that read it.
struct Site {
    x: ValueId,
    linears: Vec<ValueId>,
    /// Channels of a head, and query heads of a kv head, behind attention.
    heads: Option<(usize, usize)>,
}

impl Site {
    fn find(graph: &Graph, x: ValueId) -> Option<Site> {
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

    /// Why scales cannot go there.
    fn refusal(&self, graph: &Graph) -> Option<&'static str> {
        let constant = |linear: &ValueId| is_constant(graph, graph.operands(*linear)[1]);
        let others = graph.users(self.x).len() > self.linears.len() || graph.outputs.contains(&self.x);
        if !self.linears.iter().all(constant) {
            return Some("a weight that reads the same input is no constant");
        }
        others.then_some("something else reads its input, too")
    }

    /// `x` over λ, and weights times λ behind a fence.
    fn patch(&self, graph: &Graph, lambda: &[f32], names: &mut Names<'_>) -> Result<Patch, PassError> {
        let name = leaf_name(graph, graph.operands(self.linears[0])[1]);
        let mut patch = Patch::new(&*name);
        let inverse: Vec<f32> = lambda.iter().map(|l| 1.0 / l).collect();
        let lambda = names.vector(&mut patch, &name, "smooth", lambda);
        let inverse = names.vector(&mut patch, &name, "smooth.x", &inverse);
        let x = patch.add(graph, Op::Scale, &[self.x.into(), inverse])?;
        for linear in &self.linears {
            let scaled = patch.add(graph, Op::Scale, &[graph.operands(*linear)[1].into(), lambda])?;
            let fenced = patch.add(graph, Op::Fence, &[scaled])?;
            let smooth = patch.add(graph, Op::Linear, &[x, fenced])?;
            patch.replace(*linear, smooth);
        }
        Ok(patch)
    }

    /// `x`, what it is made of as far as 1/λ goes, and the linears with some of their output channels.
    fn piece(&self, graph: &Graph) -> Result<Piece, PassError> {
        let mut piece = Piece::behind(graph, &[self.x], &[self.x]);
        let x = piece.graph.outputs.pop().unwrap_or_else(|| piece.copies[&self.x]);
        for linear in &self.linears {
            let weight = graph.operands(*linear)[1];
            let (ty, data) = sample(graph, weight)?;
            let weight = piece.graph.constant(&leaf_name(graph, weight), ty, data);
            let linear = piece.graph.add(Op::Linear, &[x, weight]).expect("some rows fit where all did");
            piece.graph.outputs.push(linear);
        }
        Ok(piece)
    }
}

/// How much of λ follows the input; the rest follows the weights.
const ALPHAS: [f32; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// What a candidate goes through before its error is taken.
const QUANTIZED: &str = "fold-scales,quantize-kv{fit=clipped},quantize-weights,quantize-activations";

impl SmoothLinears {
    fn find(&self, graph: &Graph, x: ValueId) -> Option<Site> {
        let site = Site::find(graph, x)?;
        let Some(reason) = site.refusal(graph) else { return Some(site) };
        self.calibration.refuse(&leaf_name(graph, graph.operands(site.linears[0])[1]), reason);
        None
    }

    fn site(&self, graph: &Graph, site: &Site, names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        let piece = site.piece(graph)?;
        let x = piece.copies[&site.x];
        let bench = Bench::new(&self.calibration, graph, piece, QUANTIZED)?;
        let local = Site { x, linears: bench.graph.outputs.clone(), ..*site };
        let (means, absmax) = local.sizes(&bench)?;
        let columns = local.columns(&bench.graph);
        let before = bench.error(None)?;
        let patch = |lambda: &[f32]| local.patch(&bench.graph, lambda, &mut Names::new(&bench.graph));
        let tried = ALPHAS.map(|alpha| (alpha, site.lambda(&means, &columns, alpha)));
        let found = best(before, tried, |(_, lambda)| bench.error(Some(patch(lambda)?)))?;
        self.calibration.note(|block| {
            let chosen = |(after, (alpha, lambda)): &(f64, (f32, Vec<f32>))| {
                let absmax_after = absmax.iter().zip(lambda).map(|(x, l)| x / l).collect();
                let (form, alpha) = ("mean|x|^alpha / max|w|^(1-alpha)".into(), Some(f64::from(*alpha)));
                (*after, Smoothing { form, alpha, absmax_after, ..Smoothing::default() })
            };
            let name = leaf_name(graph, graph.operands(site.linears[0])[1]);
            let found = found.as_ref().map(chosen);
            block.searched(Smoothing::searched(&name, ALPHAS.len(), before, absmax.clone(), found));
        });
        let Some((after, (alpha, lambda))) = found else { return Ok(None) };
        let mut patch = site.patch(graph, &lambda, names)?;
        patch.notes.push(format!("alpha {alpha}: error {before:.4} to {after:.4}"));
        Ok(Some(patch))
    }
}
