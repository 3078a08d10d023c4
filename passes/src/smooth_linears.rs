//! `smooth-linears`: scales on the inputs of linears, and their inverses in the columns of the weights, that make both
//! easier to round (FireQ section 4).
//!
//! Contract: where linears with plain constant weights read `x`, which a norm, SiLU(gate)·up or attention makes, `x` is
//! divided by λ, one for each channel, and columns of the weights are multiplied by it, behind a fence: `fold-scales` then
//! moves 1/λ into what makes `x`, and nothing moves λ back. λ is `mean|x|^α / max|w|^(1−α)`; behind attention it is equal in
//! all query heads of a kv head. α is the one of the least error of the graph's first output under nearest-integer weights
//! and INT4 caches, on calibration data. Fires when that error falls by 3 % or more, and once for each linear: a weight
//! behind a fence is left alone, and so is an input of weights that `keep` matches. With `form=paper` λ is that of the paper
//! instead (`smooth/paper.rs`), without a search, and fires always. Reassociates.
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

use std::sync::Arc;

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::interp::eval_constant;
use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, ValueId};

use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::glob::matches_any;
use crate::options::Options;
use crate::pattern::Names;
use crate::smooth::paper::Constants;
use crate::smooth::{Judged, best, rows};

/// The pass.
pub(crate) struct SmoothLinears {
    calibration: Arc<Calibration>,
    /// Names of weights whose inputs are left alone.
    keep: String,
    paper: Option<Constants>,
}

impl SmoothLinears {
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        let (keep, paper) = (options.text("keep")?.into(), Constants::read(options)?);
        Ok(SmoothLinears { calibration: options.calibration().clone(), keep, paper })
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
        let sites = graph.schedule().into_iter().filter_map(|value| Site::find(graph, value));
        let sites = sites.filter(|site| !site.kept(graph, &self.keep));
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
        let linears = graph.users(x);
        let open = |linear: &ValueId| {
            let operands = graph.operands(*linear);
            *graph.op(*linear) == Op::Linear
                && operands[0] == x
                && graph.ty(operands[1]).scheme.is_plain()
                && *graph.op(operands[1]) != Op::Fence
                && is_constant(graph, operands[1])
        };
        let all = !linears.is_empty() && linears.iter().all(open) && !graph.outputs.contains(&x);
        all.then_some(Site { x, linears, heads })
    }

    fn kept(&self, graph: &Graph, keep: &str) -> bool {
        let name = |linear: &ValueId| leaf_name(graph, graph.operands(*linear)[1]);
        self.linears.iter().any(|linear| matches_any(keep, &name(linear)))
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

    /// The largest magnitude in each column of the weights.
    fn columns(&self, graph: &Graph) -> Result<Vec<f32>, PassError> {
        let mut largest = vec![0.0f32; graph.ty(self.x).shape.cols().fixed().unwrap_or(0)];
        for linear in &self.linears {
            let weight = graph.operands(*linear)[1];
            let refuse = |reason| PassError::Refused { site: leaf_name(graph, weight).to_string(), reason };
            let weight = eval_constant(graph, weight).map_err(|e| refuse(e.to_string()))?.to_f32();
            for row in weight.chunks(largest.len()) {
                largest.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
            }
        }
        Ok(largest)
    }
}

/// How much of λ follows the input; the rest follows the weights.
const ALPHAS: [f32; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// What a candidate goes through before its error is taken.
const QUANTIZED: &str = "fold-scales,quantize-kv{fit=clipped},quantize-weights,quantize-activations";

impl SmoothLinears {
    fn site(&self, graph: &Graph, site: &Site, names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        if let Some(constants) = &self.paper {
            let lambda = constants.lambda(graph, site.x, &site.linears)?;
            return lambda.map(|lambda| site.patch(graph, &lambda, names)).transpose();
        }
        let columns = site.columns(graph)?;
        let mut means = vec![0.0f64; columns.len()];
        for row in rows(&self.calibration, graph, site.x)?.chunks(columns.len()) {
            means.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(x.abs()));
        }
        let judged = Judged::new(&self.calibration, graph, graph.outputs[0], QUANTIZED)?;
        let before = judged.error(None)?;
        let patch = |lambda: &[f32]| site.patch(graph, lambda, &mut Names::new(graph));
        let tried = ALPHAS.map(|alpha| (alpha, site.lambda(&means, &columns, alpha)));
        let found = best(before, tried, |(_, lambda)| judged.error(Some(patch(lambda)?)))?;
        let Some((after, (alpha, lambda))) = found else { return Ok(None) };
        let mut patch = site.patch(graph, &lambda, names)?;
        patch.notes.push(format!("alpha {alpha}: error {before:.4} to {after:.4}"));
        Ok(Some(patch))
    }
}

impl Site {
    /// `mean|x|^α / max|w|^(1−α)` in units of its geometric mean; 1 where a channel has no inputs or no weights.
    fn lambda(&self, means: &[f64], columns: &[f32], alpha: f32) -> Vec<f32> {
        let alpha = f64::from(alpha);
        let log = |(mean, column): (&f64, &f32)| {
            let log = alpha * mean.ln() - (1.0 - alpha) * f64::from(*column).ln();
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

/// The mean over query heads of each channel, in all of them.
fn share(group: &mut [Option<f64>], head: usize) {
    for channel in 0..head {
        let of: Vec<f64> = group.iter().skip(channel).step_by(head).flatten().copied().collect();
        let mean = (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64);
        group.iter_mut().skip(channel).step_by(head).for_each(|log| *log = mean);
    }
}
