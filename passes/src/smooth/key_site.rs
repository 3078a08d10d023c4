//! Where scales of keys, and their inverses on queries, go.

use fireq_ir::{DType, Graph, Op, PassError, Patch, Ref, ValueId};

use super::size::Size;
use crate::pattern::{Names, numbers, used_once};

/// Keys and queries of an attention, as rope leaves them.
pub(crate) struct Site {
    pub attention: ValueId,
    pub q: ValueId,
    pub k: ValueId,
    /// Kv heads, query heads of each, and channels of a head.
    pub kv_heads: usize,
    repeats: usize,
    pub head: usize,
    /// A norm before the rope has one weight for all heads.
    pub shared: bool,
    /// What keys are multiplied by behind the rope.
    pub behind: Option<Vec<f32>>,
    /// The key cache's.
    pub name: String,
}

impl Site {
    /// A site that nothing is scaled at yet.
    pub fn find(graph: &Graph, attention: ValueId) -> Option<Site> {
        Site::find_scaled(graph, attention).filter(|site| site.behind.is_none())
    }

    /// A site, be there one scale behind the ropes of both keys and queries or none.
    pub fn find_scaled(graph: &Graph, attention: ValueId) -> Option<Site> {
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
        let turned = [q, k].iter().all(|v| *graph.op(*v) == Op::Rope);
        let norm = |v: ValueId| matches!(graph.op(graph.operands(v)[0]), Op::RmsNorm { .. });
        let head = graph.ty(q).shape.cols().fixed()? / heads;
        let name = graph.op(cache).name()?.to_string();
        let (shared, repeats) = (turned && (norm(q) || norm(k)), heads / kv_heads);
        turned.then_some(Site { attention, q, k, kv_heads, repeats, head, shared, behind, name })
    }

    /// The size of each channel of some rows of keys; of all heads the largest, where they share a scale.
    pub fn sizes(&self, size: Size, rows: &[f32]) -> Vec<f32> {
        let mut sizes = size.of(rows, self.kv_heads * self.head);
        if self.shared {
            let of = |i: usize| sizes.iter().skip(i).step_by(self.head).copied().fold(0.0, f32::max);
            let largest: Vec<f32> = (0..self.head).map(of).collect();
            sizes.chunks_mut(self.head).for_each(|one| one.copy_from_slice(&largest));
        }
        sizes
    }

    /// The patch for `scale`, unless it is ones.
    pub fn put(
        &self,
        graph: &Graph,
        scale: &[f32],
        names: &mut Names<'_>,
    ) -> Result<Option<Patch>, PassError> {
        let usable = scale.iter().all(|s| s.is_finite() && *s > 0.0 && s.recip().is_finite());
        let something = scale.iter().any(|s| (s - 1.0).abs() > NOTHING);
        (usable && something).then(|| self.patch(graph, scale, names)).transpose()
    }

    /// `k` times `scale`, and `q` times its inverse.
    pub fn patch(&self, graph: &Graph, scale: &[f32], names: &mut Names<'_>) -> Result<Patch, PassError> {
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

/// Scales nearer to 1 are what is left of rounding once a scale was moved into weights.
const NOTHING: f32 = 1e-3;

/// What is scaled by constant numbers for each channel, and the numbers.
fn scaled(graph: &Graph, value: ValueId) -> Option<(ValueId, Vec<f32>)> {
    let [x, scale] = graph.operands(value)[..] else { return None };
    let scale = (*graph.op(value) == Op::Scale && used_once(graph, value)).then(|| numbers(graph, scale))?;
    Some((x, scale?))
}
