//! Scales on keys: the best of some candidates, or those of a formula.

use std::sync::Arc;

use fireq_ir::{Effect, Graph, Pass, PassError, Patch, ValueId};

use super::key_site::Site;
use super::size::Size;
use super::{Bench, COMPARED, best, worth};
use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::findings::Smoothing;
use crate::glob::matches_any;
use crate::left::Left;
use crate::options::Options;
use crate::pattern::{Names, used_once};
use crate::piece::Piece;

/// A pass that puts scales on keys.
pub(crate) struct SmoothKeys {
    id: &'static str,
    form: Form,
    /// Names of key caches to leave alone.
    keep: String,
    calibration: Arc<Calibration>,
    left: Left,
}

/// Scales for keys that are given as rows.
type Candidates = fn(&Site, &[f32]) -> Vec<Candidate>;

/// How scales come about.
pub(crate) enum Form {
    /// The best of these, where it is worth having.
    Search {
        /// What is tried.
        candidates: Candidates,
        /// What another pass will try where this one does nothing: it gets its turn where it is better by enough.
        instead: Option<Candidates>,
    },
    /// This one, always.
    Paper(Formula),
}

/// A scale for keys.
type Formula = Box<dyn Fn(&Site, &[f32]) -> Candidate>;

impl SmoothKeys {
    pub fn new(id: &'static str, form: Form, options: &Options) -> Result<Self, PipelineError> {
        let keep = options.text("keep")?.into();
        Ok(SmoothKeys { id, form, keep, calibration: options.calibration().clone(), left: Left::default() })
    }
}

impl Pass for SmoothKeys {
    fn id(&self) -> &'static str {
        self.id
    }

    fn effect(&self) -> Effect {
        Effect::Reassociates
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let mut names = Names::new(graph);
        let sites = graph.schedule().into_iter().filter_map(|value| self.find(graph, value));
        let sites = sites.filter(|site| !matches_any(&self.keep, &site.name));
        let named = sites.map(|site| (site.name.clone(), site));
        self.left.round(named, |site| self.site(graph, site, &mut names))
    }
}

impl SmoothKeys {
    /// The site of an attention, if nothing else would see what is scaled there.
    fn find(&self, graph: &Graph, attention: ValueId) -> Option<Site> {
        let searched = matches!(self.form, Form::Search { .. });
        let site = if searched { Site::find(graph, attention) } else { Site::find_scaled(graph, attention) }?;
        let alone = [site.q, site.k].iter().all(|v| used_once(graph, *v));
        if !alone {
            self.calibration.refuse(&site.name, "something else reads its keys or queries, too");
        }
        alone.then_some(site)
    }

    fn site(&self, graph: &Graph, site: &Site, names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        let piece = Piece::behind(graph, &[site.q, site.k], &[site.attention]);
        let bench = Bench::new(&self.calibration, graph, piece, "quantize-kv{fit=clipped}")?;
        let local = Site::find_scaled(&bench.graph, bench.graph.outputs[0]).expect("the piece has the site");
        let before = bench.error(None, COMPARED)?;
        if before == 0.0 {
            // The cache is left as it is.
            return Ok(None);
        }
        let keys = bench.rows(local.k)?;
        let error = |scale: &[f32], most| {
            bench.error(Some(local.patch(&bench.graph, scale, &mut Names::new(&bench.graph))?), most)
        };
        let (tried, found) = self.choose(site, &keys, before, error)?;
        let patch = found.as_ref().map(|(_, chosen)| site.put(graph, &chosen.scale, names)).transpose()?;
        let mut patch = patch.flatten();
        if patch.is_none() && matches!(self.form, Form::Paper(_)) {
            return Ok(None);
        }
        let finding = self.finding(site, (tried, before), &keys, found);
        if let Some(patch) = &mut patch {
            patch.notes.push(finding.note());
        }
        self.calibration.note(|block| block.searched(finding));
        Ok(patch)
    }

    /// What a report says of a site where so many were tried, instead of an error of `before`.
    fn finding(
        &self,
        site: &Site,
        (tried, before): (usize, f64),
        keys: &[f32],
        found: Option<(f64, Candidate)>,
    ) -> Smoothing {
        let absmax = site.sizes(Size::Largest, keys);
        let found = found.map(|(after, chosen)| (after, chosen.finding(&absmax)));
        let name = format!("{} {}", site.name, self.id.trim_start_matches("smooth-"));
        Smoothing::searched(&name, tried, before, absmax, found)
    }

    /// How many candidates there were, and the one that is wanted instead of an error of `before`, with its error.
    fn choose(
        &self,
        site: &Site,
        keys: &[f32],
        before: f64,
        error: impl Fn(&[f32], usize) -> Result<f64, PassError>,
    ) -> Result<(usize, Option<(f64, Candidate)>), PassError> {
        let judge = |one: &Candidate, most| error(&one.scale, most);
        match &self.form {
            Form::Paper(scale) => {
                let one = scale(site, keys);
                Ok((1, Some((judge(&one, COMPARED)?, one))))
            }
            Form::Search { candidates, instead } => {
                let rival = instead.map(|rivals| best(rivals(site, keys), judge)).transpose()?.flatten();
                let candidates = candidates(site, keys);
                let tried = candidates.len();
                let found = best(candidates, judge)?.filter(|(after, _)| {
                    worth(before, *after) && rival.is_none_or(|(rival, _)| !worth(*after, rival))
                });
                Ok((tried, found))
            }
        }
    }
}

/// A scale for the channels of keys, and how it came about.
pub(crate) struct Candidate {
    pub form: String,
    /// The exponent of a channel's size, or the size that it gets by formula.
    pub constant: f32,
    /// Channels of a head that are scaled by themselves, where not all are.
    pub channels: Option<usize>,
    pub scale: Vec<f32>,
}

impl Candidate {
    /// What a report says of it, for keys of these magnitudes.
    fn finding(self, absmax: &[f32]) -> Smoothing {
        let constant = Some(f64::from(self.constant));
        let (alpha, beta) = if self.channels.is_some() { (None, constant) } else { (constant, None) };
        let absmax_after = absmax.iter().zip(&self.scale).map(|(size, scale)| size * scale).collect();
        let Candidate { form, channels: k, .. } = self;
        Smoothing { form, alpha, beta, k, absmax_after, ..Smoothing::default() }
    }
}

/// Powers of a channel's size.
pub(crate) const POWERS: [f32; 4] = [0.25, 0.5, 0.75, 1.0];
