//! Scales on keys and their inverses on queries: where they go, and the search for those of the least error.

use std::sync::Arc;

use fireq_ir::{DType, Effect, Graph, Op, Pass, PassError, Patch, Ref, ValueId};

use super::{Judged, best, rows};
use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::glob::matches_any;
use crate::options::Options;
use crate::pattern::{Names, numbers, used_once};

/// A pass that puts scales on keys.
pub(crate) struct SmoothKeys {
    id: &'static str,
    form: Form,
    /// Names of key caches to leave alone.
    keep: String,
    calibration: Arc<Calibration>,
}

/// How scales come about.
pub(crate) enum Form {
    /// The best of these, where it is worth having.
    Search(fn(&Site, &[f32]) -> Vec<Candidate>),
    /// This one, always.
    Paper(Formula),
}

/// A scale for keys.
type Formula = Box<dyn Fn(&Site, &[f32]) -> Vec<f32>>;

impl SmoothKeys {
    pub fn new(id: &'static str, form: Form, options: &Options) -> Result<Self, PipelineError> {
        let keep = options.text("keep")?.into();
        Ok(SmoothKeys { id, form, keep, calibration: options.calibration().clone() })
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
        let find = if matches!(self.form, Form::Search(_)) { Site::find } else { Site::find_scaled };
        let sites = graph.schedule().into_iter().filter_map(|value| find(graph, value));
        let sites = sites.filter(|site| !matches_any(&self.keep, &site.name));
        sites.filter_map(|site| self.site(graph, &site, &mut names).transpose()).collect()
    }
}

/// Keys and queries of an attention, as rope leaves them.
pub(crate) struct Site {
    attention: ValueId,
    q: ValueId,
    k: ValueId,
    /// Kv heads, query heads of each, and channels of a head.
    pub kv_heads: usize,
    repeats: usize,
    pub head: usize,
    /// A norm before the rope has one weight for all heads.
    pub shared: bool,
    /// What keys are multiplied by behind the rope.
    pub behind: Option<Vec<f32>>,
    name: String,
}

impl Site {
    /// A site that nothing is scaled at yet.
    fn find(graph: &Graph, attention: ValueId) -> Option<Site> {
        Site::find_scaled(graph, attention).filter(|site| site.behind.is_none())
    }

    /// A site, be there one scale behind the ropes of both keys and queries or none.
    fn find_scaled(graph: &Graph, attention: ValueId) -> Option<Site> {
        let Op::Attention { heads, kv_heads, .. } = *graph.op(attention) else { return None };
        let [q, append, _] = graph.operands(attention)[..] else { return None };
        if *graph.op(append) != Op::KvAppend || graph.ty(append).dtype != DType::F32 {
            return None;
        }
        let [cache, k] = graph.operands(append)[..] else { return None };
        let (q, k, behind) = match (scaled(graph, q), scaled(graph, k)) {
            (Some((q, _)), Some((k, behind))) => (q, k, Some(behind)),
            _ => (q, k, None),
        };
        let turned = [q, k].iter().all(|v| *graph.op(*v) == Op::Rope && used_once(graph, *v));
        let norm = |v: ValueId| matches!(graph.op(graph.operands(v)[0]), Op::RmsNorm { .. });
        let head = graph.ty(q).shape.cols().fixed()? / heads;
        let name = graph.op(cache).name()?.to_string();
        let shared = turned && (norm(q) || norm(k));
        turned.then_some(Site {
            attention,
            q,
            k,
            kv_heads,
            repeats: heads / kv_heads,
            head,
            shared,
            behind,
            name,
        })
    }
}

/// What is scaled by constant numbers for each channel, and the numbers.
fn scaled(graph: &Graph, value: ValueId) -> Option<(ValueId, Vec<f32>)> {
    let [x, scale] = graph.operands(value)[..] else { return None };
    let scale = (*graph.op(value) == Op::Scale && used_once(graph, value)).then(|| numbers(graph, scale))?;
    Some((x, scale?))
}

impl SmoothKeys {
    fn site(&self, graph: &Graph, site: &Site, names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        let keys = rows(&self.calibration, graph, site.k)?;
        let candidates = match &self.form {
            Form::Search(candidates) => candidates,
            Form::Paper(scale) => return site.put(graph, &scale(site, &keys), names),
        };
        let judged = Judged::new(&self.calibration, graph, site.attention, "quantize-kv{fit=clipped}")?;
        let before = judged.error(None)?;
        let patch = |scale: &[f32]| site.patch(graph, scale, &mut Names::new(graph));
        let tried = candidates(site, &keys);
        let found = best(before, tried, |one| judged.error(Some(patch(&one.scale)?)))?;
        let Some((after, best)) = found else { return Ok(None) };
        let mut patch = site.patch(graph, &best.scale, names)?;
        patch.notes.push(format!("{}: error {before:.4} to {after:.4}", best.form));
        Ok(Some(patch))
    }
}

/// A scale for the channels of keys, and how it came about.
pub(crate) struct Candidate {
    pub form: String,
    pub scale: Vec<f32>,
}

/// Powers of a channel's size.
pub(crate) const POWERS: [f32; 4] = [0.25, 0.5, 0.75, 1.0];

/// What `add` makes of the magnitudes of each channel of all rows.
pub(crate) fn sizes(site: &Site, keys: &[f32], add: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let width = site.kv_heads * site.head;
    let mut sizes = vec![0.0f32; width];
    for row in keys.chunks(width) {
        sizes.iter_mut().zip(row).for_each(|(size, x)| *size = add(*size, x.abs()));
    }
    sizes
}

/// The largest size of a channel in any head, in all heads.
pub(crate) fn share(sizes: &mut [f32], head: usize) {
    let largest: Vec<f32> =
        (0..head).map(|i| sizes.iter().skip(i).step_by(head).copied().fold(0.0, f32::max)).collect();
    sizes.chunks_mut(head).for_each(|one| one.copy_from_slice(&largest));
}

/// Scales nearer to 1 are what is left of rounding once a scale was moved into weights.
const NOTHING: f32 = 1e-3;

impl Site {
    /// The patch for `scale`, unless it is ones.
    fn put(&self, graph: &Graph, scale: &[f32], names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        let usable = scale.iter().all(|s| s.is_finite() && *s > 0.0 && s.recip().is_finite());
        let something = scale.iter().any(|s| (s - 1.0).abs() > NOTHING);
        (usable && something).then(|| self.patch(graph, scale, names)).transpose()
    }

    /// `k` times `scale`, and `q` times its inverse.
    fn patch(&self, graph: &Graph, scale: &[f32], names: &mut Names<'_>) -> Result<Patch, PassError> {
        let inverse: Vec<f32> = scale
            .chunks(self.head)
            .flat_map(|head| std::iter::repeat_n(head, self.repeats).flatten().map(|s| 1.0 / s))
            .collect();
        let mut patch = Patch::new(self.name.clone());
        for (value, numbers, what) in [(self.k, scale, "smooth"), (self.q, &inverse, "smooth.q")] {
            let vector = names.vector(&mut patch, &self.name, what, numbers);
            let turned: Vec<Ref> = graph.operands(value).into_iter().map(Ref::from).collect();
            let turned = patch.add(graph, Op::Rope, &turned)?;
            let scaled = patch.add(graph, Op::Scale, &[turned, vector])?;
            patch.replace(value, scaled);
        }
        Ok(patch)
    }
}
