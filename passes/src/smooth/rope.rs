//! `smooth-rope-pre` and `smooth-rope-post`: scales on keys, and their inverses on queries, that make keys easier to round
//! to INT4 (FireQ section 5).
//!
//! Contract: where attention reads `q` and, appended to a cache, `k`, both turned by rope, `k` is multiplied by a scale per
//! channel behind the rope, and `q` by its inverse in every query head of the kv head. With `smooth-rope-pre` (N) the two
//! channels of a rope pair share a scale, which therefore moves through the rope into the weights: it is an inverse power
//! of the pair's largest or root-mean-square length. With `smooth-rope-post` (S) the channels with the largest
//! magnitudes, and the others of their pairs, have scales of their own, which stay behind the rope. Powers and the
//! number of channels are those of the least error of the attention's output under `quantize-kv{fit=clipped}`, on
//! calibration data. Fires when that error falls by [`WORTH`] or more, and neither keys nor queries are scaled behind the rope
//! already. Where a norm per head stands before the rope, all heads share a scale. Reassociates.
//!
//! ```
//! let text = r#"graph "g" {
//!   %0 = input {name="q"} : f32[T,4]
//!   %1 = input {name="k"} : f32[T,4]
//!   %2 = input {name="positions"} : i32[T]
//!   %3 = const {name="spread", data=[1.0, 32.0, 1.0, 32.0]} : f32[4]
//!   %4 = scale %1, %3 : f32[T,4]
//!   %5 = const {name="inv_freq", data=[1.0, 0.1]} : f32[2]
//!   %6 = rope_table %2, %5 : f32[T,4]
//!   %7 = rope %0, %6 : f32[T,4]
//!   %8 = rope %4, %6 : f32[T,4]
//!   %9 = cache {name="k.0"} : f32[P,4]
//!   %10 = kv_append %9, %8 : f32[P+T,4]
//!   %11 = cache {name="v.0"} : f32[P,4]
//!   %12 = kv_append %11, %1 : f32[P+T,4]
//!   %13 = attention %7, %10, %12 {heads=1, kv_heads=1, scale=0.5, p=f32} : f32[T,4]
//!   return %13
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(text).unwrap();
//! assert_eq!(fireq_passes::pipeline("smooth-rope-pre").unwrap().run(&mut graph).unwrap(), 1);
//! assert_eq!(fireq_passes::pipeline("smooth-rope-pre").unwrap().run(&mut graph).unwrap(), 0);
//! ```

use std::sync::Arc;

use fireq_ir::{
    ConstData, DType, Effect, Graph, Moved, Op, Pass, PassError, Patch, Ref, Shape, Type, ValueId,
};

use super::{error, rows};
use crate::calibration::Calibration;
use crate::options::Options;
use crate::pattern::{Names, used_once};

/// The share of the error that a scale must take away.
pub(crate) const WORTH: f64 = 0.03;

/// Which of the two passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// N: commutes with rope.
    Pre,
    /// S: does not.
    Post,
}

/// The pass.
pub(crate) struct SmoothRope {
    stage: Stage,
    calibration: Arc<Calibration>,
}

impl SmoothRope {
    pub fn new(options: &Options, stage: Stage) -> Self {
        SmoothRope { stage, calibration: options.calibration().clone() }
    }
}

impl Pass for SmoothRope {
    fn id(&self) -> &'static str {
        match self.stage {
            Stage::Pre => "smooth-rope-pre",
            Stage::Post => "smooth-rope-post",
        }
    }

    fn effect(&self) -> Effect {
        Effect::Reassociates
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let mut names = Names::new(graph);
        let sites = graph.schedule().into_iter().filter_map(|value| Site::find(graph, value));
        sites.filter_map(|site| self.site(graph, &site, &mut names).transpose()).collect()
    }
}

/// Keys and queries of an attention, as rope leaves them.
struct Site {
    attention: ValueId,
    q: ValueId,
    k: ValueId,
    /// Kv heads, query heads of each, and channels of a head.
    kv_heads: usize,
    repeats: usize,
    head: usize,
    /// A norm before the rope has one weight for all heads.
    shared: bool,
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
        let turned = [q, k].iter().all(|v| *graph.op(*v) == Op::Rope && used_once(graph, *v));
        let norm = |v: ValueId| matches!(graph.op(graph.operands(v)[0]), Op::RmsNorm { .. });
        let head = graph.ty(q).shape.cols().fixed()? / heads;
        let name = graph.op(cache).name()?.to_string();
        let shared = turned && (norm(q) || norm(k));
        turned.then_some(Site { attention, q, k, kv_heads, repeats: heads / kv_heads, head, shared, name })
    }
}

impl SmoothRope {
    fn site(&self, graph: &Graph, site: &Site, names: &mut Names<'_>) -> Result<Option<Patch>, PassError> {
        let keys = rows(&self.calibration, graph, site.k)?;
        let reference = rows(&self.calibration, graph, site.attention)?;
        let quantized = |scale: Option<&[f32]>| {
            let mut candidate = graph.clone();
            candidate.outputs = vec![site.attention];
            if let Some(scale) = scale {
                candidate.apply(site.patch(graph, scale, &mut Names::new(graph))?, &mut Moved::new())?;
            }
            let quantize = crate::pipeline("quantize-kv{fit=clipped}").expect("a pass of this name");
            quantize.run(&mut candidate).map_err(|failed| failed.source)?;
            error(&self.calibration, &reference, &candidate)
        };
        let before = quantized(None)?;
        let mut best: Option<(f64, Candidate)> = None;
        for candidate in candidates(self.stage, site, &keys) {
            let found = quantized(Some(&candidate.scale))?;
            if best.as_ref().is_none_or(|(least, _)| found < *least) {
                best = Some((found, candidate));
            }
        }
        let Some((after, best)) = best.filter(|(after, _)| *after < before * (1.0 - WORTH)) else {
            return Ok(None);
        };
        let mut patch = site.patch(graph, &best.scale, names)?;
        patch.notes.push(format!("{}: error {before:.4} to {after:.4}", best.form));
        Ok(Some(patch))
    }
}

/// A scale for the channels of keys, and how it came about.
struct Candidate {
    form: String,
    scale: Vec<f32>,
}

/// Powers of a channel's size.
const POWERS: [f32; 4] = [0.25, 0.5, 0.75, 1.0];
/// Channels of a head that have scales of their own, besides those of their pairs.
const CHANNELS: [usize; 4] = [2, 4, 8, 16];

fn candidates(stage: Stage, site: &Site, keys: &[f32]) -> Vec<Candidate> {
    match stage {
        Stage::Pre => {
            let sizes = [
                ("largest", pair_sizes(site, keys, f32::max)),
                ("rms", pair_sizes(site, keys, |sum, x| sum + x * x)),
            ];
            let scaled = |(name, sizes): &(&str, Vec<f32>)| {
                let exponent = if *name == "rms" { 0.5 } else { 1.0 };
                let of = |power: f32| Candidate {
                    form: format!("{name} to the power of -{power}"),
                    scale: inverse_powers(sizes, power * exponent),
                };
                POWERS.map(of)
            };
            sizes.iter().flat_map(scaled).collect()
        }
        Stage::Post => {
            let mut sizes = sizes(site, keys, f32::max);
            if site.shared {
                share(&mut sizes, site.head);
            }
            let of = |count: usize| {
                POWERS.map(|power| Candidate {
                    form: format!("{count} channels and their pairs to the power of -{power}"),
                    scale: sizes.chunks(site.head).flat_map(|head| top(head, count, power)).collect(),
                })
            };
            CHANNELS.into_iter().filter(|count| 2 * count <= site.head).flat_map(of).collect()
        }
    }
}

/// What `add` makes of the magnitudes of each channel of all rows.
fn sizes(site: &Site, keys: &[f32], add: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let width = site.kv_heads * site.head;
    let mut sizes = vec![0.0f32; width];
    for row in keys.chunks(width) {
        sizes.iter_mut().zip(row).for_each(|(size, x)| *size = add(*size, x.abs()));
    }
    sizes
}

/// The same for the lengths of rope pairs, on both of their channels; for all heads together where they share a scale.
fn pair_sizes(site: &Site, keys: &[f32], add: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let half = site.head / 2;
    let lengths = |head: &[f32]| -> Vec<f32> {
        let pair = |i: usize| head[i].hypot(head[i + half]);
        (0..2 * half).map(|i| pair(i % half)).collect()
    };
    let rows: Vec<f32> = keys.chunks(site.head).flat_map(lengths).collect();
    let mut found = sizes(site, &rows, add);
    if site.shared {
        share(&mut found, site.head);
    }
    found
}

/// The largest size of a channel in any head, in all heads.
fn share(sizes: &mut [f32], head: usize) {
    let largest: Vec<f32> =
        (0..head).map(|i| sizes.iter().skip(i).step_by(head).copied().fold(0.0, f32::max)).collect();
    sizes.chunks_mut(head).for_each(|one| one.copy_from_slice(&largest));
}

/// `size^−power` in units of their mean; 1 for channels without any size.
fn inverse_powers(sizes: &[f32], power: f32) -> Vec<f32> {
    let mean = sizes.iter().sum::<f32>() / sizes.len().max(1) as f32;
    sizes.iter().map(|size| if *size > 1e-6 * mean { (size / mean).powf(-power) } else { 1.0 }).collect()
}

/// The `count` largest channels of a head and the others of their pairs down towards the median, each by its own size.
fn top(head: &[f32], count: usize, power: f32) -> Vec<f32> {
    let half = head.len() / 2;
    let mut order: Vec<usize> = (0..head.len()).collect();
    order.sort_by(|a, b| head[*b].total_cmp(&head[*a]));
    let median = head[order[half.min(order.len() - 1)]];
    let chosen = &order[..count.min(order.len())];
    let of = |i: usize| {
        let pair = (i + half) % (2 * half);
        let scaled = (chosen.contains(&i) || chosen.contains(&pair)) && head[i] > 0.0 && median > 0.0;
        if scaled { (head[i] / median).powf(-power) } else { 1.0 }
    };
    (0..head.len()).map(of).collect()
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
            let ty = Type::plain(DType::F32, Shape::vector(numbers.len()));
            let vector = patch.constant(&names.fresh(&self.name, what), ty, ConstData::from_f32(numbers));
            let turned: Vec<Ref> = graph.operands(value).into_iter().map(Ref::from).collect();
            let turned = patch.add(graph, Op::Rope, &turned)?;
            let scaled = patch.add(graph, Op::Scale, &[turned, vector])?;
            patch.replace(value, scaled);
        }
        Ok(patch)
    }
}
