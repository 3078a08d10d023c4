//! Scales on keys and their inverses on queries: where they go, and the search for those of the least error.

use std::sync::Arc;

use fireq_ir::{DType, Effect, Graph, Op, Pass, PassError, Patch, Ref, ValueId};

use super::{Bench, best};
use crate::calibration::Calibration;
use crate::findings::Smoothing;
use crate::pattern::{Names, used_once};
use crate::piece::Piece;

/// A pass that tries scales for keys.
pub(crate) struct SmoothKeys {
    pub id: &'static str,
    pub candidates: fn(&Site, &[f32]) -> Vec<Candidate>,
    pub calibration: Arc<Calibration>,
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
    name: String,
}

impl Site {
    fn find(graph: &Graph, attention: ValueId) -> Option<Site> {
        let Op::Attention { heads, kv_heads, .. } = *graph.op(attention) else { return None };
        let [q, append, _] = graph.operands(attention)[..] else { return None };
        if *graph.op(append) != Op::KvAppend || graph.ty(append).dtype != DType::F32 {
            return None;
        }
        let [cache, k] = graph.operands(append)[..] else { return None };
        let turned = [q, k].iter().all(|v| *graph.op(*v) == Op::Rope);
        let norm = |v: ValueId| matches!(graph.op(graph.operands(v)[0]), Op::RmsNorm { .. });
        let head = graph.ty(q).shape.cols().fixed()? / heads;
        let name = graph.op(cache).name()?.to_string();
        let shared = turned && (norm(q) || norm(k));
        turned.then_some(Site { attention, q, k, kv_heads, repeats: heads / kv_heads, head, shared, name })
    }
}

impl SmoothKeys {
    /// The site of an attention, if nothing else would see what is scaled there.
    fn find(&self, graph: &Graph, attention: ValueId) -> Option<Site> {
        let site = Site::find(graph, attention)?;
        let alone = [site.q, site.k].iter().all(|v| used_once(graph, *v));
        if !alone {
            self.calibration.refuse(&site.name, "something else reads its keys or queries, too");
        }
        alone.then_some(site)
    }

    fn site(&self, graph: &Graph, site: &Site, names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        let piece = Piece::behind(graph, &[site.q, site.k], &[site.attention]);
        let bench = Bench::new(&self.calibration, graph, piece, "quantize-kv{fit=clipped}")?;
        let local = Site::find(&bench.graph, bench.graph.outputs[0]).expect("the piece has the site");
        let before = bench.error(None)?;
        if before == 0.0 {
            // The cache is left as it is.
            return Ok(None);
        }
        let keys = bench.rows(local.k)?;
        let tried = (self.candidates)(site, &keys);
        let count = tried.len();
        let patch = |scale: &[f32]| local.patch(&bench.graph, scale, &mut Names::new(&bench.graph));
        let found = best(before, tried, |one| bench.error(Some(patch(&one.scale)?)))?;
        let absmax = sizes(site, &keys, f32::max);
        self.calibration.note(|block| {
            let found = found.as_ref().map(|(after, best)| (*after, best.chosen(&absmax)));
            let name = format!("{} {}", site.name, self.id.trim_start_matches("smooth-"));
            block.searched(Smoothing::searched(&name, count, before, absmax, found));
        });
        let Some((after, best)) = found else { return Ok(None) };
        let mut patch = site.patch(graph, &best.scale, names)?;
        patch.notes.push(format!("{}: error {before:.4} to {after:.4}", best.form));
        Ok(Some(patch))
    }
}

/// A scale for the channels of keys, and how it came about.
pub(crate) struct Candidate {
    pub form: String,
    pub power: f32,
    /// Channels of a head that are scaled by themselves, where not all are.
    pub channels: Option<usize>,
    pub scale: Vec<f32>,
}

impl Candidate {
    /// What a report says of it, for keys of these magnitudes.
    fn chosen(&self, absmax: &[f32]) -> Smoothing {
        let power = Some(f64::from(self.power));
        let (alpha, beta) = if self.channels.is_some() { (None, power) } else { (power, None) };
        let absmax_after = absmax.iter().zip(&self.scale).map(|(size, scale)| size * scale).collect();
        Smoothing {
            form: self.form.clone(),
            alpha,
            beta,
            k: self.channels,
            absmax_after,
            ..Smoothing::default()
        }
    }
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

impl Site {
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
