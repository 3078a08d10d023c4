//! `smooth-linears`: scales on the inputs of linears, and their inverses in the columns of the weights, that make both
//! easier to round (FireQ section 4).
//!
//! Contract: where linears with plain constant weights read `x`, which a norm, SiLU(gate)·up or attention makes, `x` is
//! divided by λ, one for each channel, and columns of the weights are multiplied by it, behind a fence: `fold-scales` then
//! moves 1/λ into what makes `x`, and nothing moves λ back. λ is `mean|x|^α / max|w|^(1−α)` or, as in the paper,
//! `1 / mean|w|`; behind attention it is equal in all query heads of a kv head. The one is chosen that gives the linears'
//! outputs, of 512 channels at most, the least error under nearest-integer weights and INT4 caches, on calibration data. Fires when that error falls by 3 % or more, and once for each linear: a weight
//! behind a fence is left alone, and so is an input of weights that `keep` matches, or whose codes are to stay. With `form=paper` λ is that of the paper
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

use fireq_ir::{Effect, Graph, Pass, PassError, Patch, ValueId};

use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::findings::Smoothing;
use crate::left::Left;
use crate::options::Options;
use crate::pattern::Names;
use crate::quantize_weights::Codes;
use crate::smooth::linears::{Lambda, Site};
use crate::smooth::paper::Constants;
use crate::smooth::size::Size;
use crate::smooth::{Bench, COMPARED, best, worth};

/// The pass.
pub(crate) struct SmoothLinears {
    calibration: Arc<Calibration>,
    /// Names of weights whose inputs are left alone.
    keep: String,
    /// What becomes of codes that weights have already.
    codes: Codes,
    paper: Option<Constants>,
    left: Left,
}

impl SmoothLinears {
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        let (keep, paper) = (options.text("keep")?.into(), Constants::read(options)?);
        let (calibration, codes) = (options.calibration().clone(), options.parsed("codes")?);
        Ok(SmoothLinears { calibration, keep, codes, paper, left: Left::default() })
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
        let sites = sites.filter(|site| !site.kept(graph, &self.keep));
        let named = sites.map(|site| (site.name(graph).to_string(), site));
        self.left.round(named, |site| self.site(graph, site, &mut names))
    }
}

/// What a candidate goes through before its error is taken.
const QUANTIZED: &str = "quantize-kv{fit=clipped},quantize-weights,quantize-activations";

impl SmoothLinears {
    fn find(&self, graph: &Graph, x: ValueId) -> Option<Site> {
        let site = Site::find(graph, x)?;
        let Some(reason) = site.refusal(graph, self.codes) else { return Some(site) };
        self.calibration.refuse(&site.name(graph), reason);
        None
    }

    fn site(&self, graph: &Graph, site: &Site, names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        let paper =
            self.paper.as_ref().map(|paper| paper.lambda(graph, site.x, &site.linears)).transpose()?;
        if paper == Some(None) {
            return Ok(None);
        }
        let (finding, lambda) = self.searched(graph, site, paper.flatten())?;
        let Some(lambda) = lambda else {
            // Weights that are left as they are have no error, and nothing to search for.
            if finding.error_before > 0.0 {
                self.calibration.note(|block| block.searched(finding));
            }
            return Ok(None);
        };
        let mut patch = site.patch(graph, &lambda, names)?;
        patch.notes.push(finding.note());
        self.calibration.note(|block| block.searched(finding));
        Ok(Some(patch))
    }

    /// What a report says of a site, and λ where it is wanted: the given one, or the best where it is worth having.
    fn searched(
        &self,
        graph: &Graph,
        site: &Site,
        given: Option<Vec<f32>>,
    ) -> Result<(Smoothing, Option<Vec<f32>>), PassError> {
        let (piece, local) = site.piece(graph)?;
        let bench = Bench::new(&self.calibration, graph, piece, QUANTIZED)?;
        let (before, inputs) = (bench.error(None, COMPARED)?, bench.rows(local.x)?);
        let always = given.is_some();
        let candidates = match given {
            _ if before == 0.0 => vec![],
            Some(scale) => vec![Lambda { form: "paper", alpha: None, scale }],
            None => local.candidates(&bench.graph, &inputs),
        };
        let tried = candidates.len();
        let found =
            best(candidates, |one, most| bench.error(Some(local.trial(&bench.graph, &one.scale)?), most))?;
        let found = found.filter(|(after, _)| always || worth(before, *after));
        let absmax = Size::Largest.of(&inputs, site.channels(graph));
        let chosen = found.as_ref().map(|(after, lambda)| (*after, finding(lambda, &absmax)));
        let finding = Smoothing::searched(&site.name(graph), tried, before, absmax, chosen);
        Ok((finding, found.map(|(_, lambda)| lambda.scale)))
    }
}

/// What a report says of λ, for inputs of these magnitudes.
fn finding(lambda: &Lambda, absmax: &[f32]) -> Smoothing {
    let absmax_after = absmax.iter().zip(&lambda.scale).map(|(x, l)| x / l).collect();
    let (form, alpha) = (lambda.form.into(), lambda.alpha.map(f64::from));
    Smoothing { form, alpha, absmax_after, ..Smoothing::default() }
}
