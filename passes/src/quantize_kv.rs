//! `quantize-kv`: keys and values to INT4 before they enter the cache, queries and probabilities to FP8.
//!
//! Contract: `attention(q, kv_append(cache, k), kv_append(cache, v))` on plain values becomes attention over caches of
//! INT4 codes, one group per token and kv head under an E4M3 scale, with `q` in E4M3 under a scale per token and head
//! and `p=e4m3` (FireQ section 6). How the scales of keys and values are chosen is `fit`. The caches keep their names.
//! Caches that `keep` matches, of heads wider than 128, or read elsewhere, too, are left alone. Lossy.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="q"} : f32[T,64]
//!   %1 = input {name="k"} : f32[T,64]
//!   %2 = cache {name="k.0"} : f32[P,64]
//!   %3 = kv_append %2, %1 : f32[P+T,64]
//!   %4 = cache {name="v.0"} : f32[P,64]
//!   %5 = kv_append %4, %1 : f32[P+T,64]
//!   %6 = attention %0, %3, %5 {heads=1, kv_heads=1, scale=0.125, p=f32} : f32[T,64]
//!   return %6
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("quantize-kv").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="q"} : f32[T,64]
//!   %1 = input {name="k"} : f32[T,64]
//!   %2 = quantize %0 {to=e4m3<g64:f32>} : e4m3<g64:f32>[T,64]
//!   %3 = cache {name="k.0"} : i4<g64:e4m3>[P,64]
//!   %4 = quantize %1 {to=i4<g64:e4m3>} : i4<g64:e4m3>[T,64]
//!   %5 = kv_append %3, %4 : i4<g64:e4m3>[P+T,64]
//!   %6 = cache {name="v.0"} : i4<g64:e4m3>[P,64]
//!   %7 = quantize %1 {to=i4<g64:e4m3>} : i4<g64:e4m3>[T,64]
//!   %8 = kv_append %6, %7 : i4<g64:e4m3>[P+T,64]
//!   %9 = attention %2, %5, %8 {heads=1, kv_heads=1, scale=0.125, p=e4m3} : f32[T,64]
//!   return %9
//! }
//! "#);
//! ```

use std::sync::Arc;

use fireq_ir::{DType, Effect, Fit, Format, Graph, Op, Pass, PassError, Patch, Ref, ValueId};

use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::glob::matches_any;
use crate::options::Options;
use crate::table::{FIT, OptionInfo};

/// What can be set.
pub(crate) const OPTIONS: &[OptionInfo] = &[
    OptionInfo { name: "fit", default: "absmax", doc: FIT },
    OptionInfo { name: "keep", default: "", doc: "names of caches, such as k.3 or v.*, to leave alone" },
];

/// The widest head that one scale covers.
const WIDEST_HEAD: usize = 128;

/// The pass with its options.
pub(crate) struct QuantizeKv {
    /// How scales of keys and values are chosen.
    fit: Fit,
    /// Names of caches to leave alone.
    keep: String,
    /// Where caches that are left alone are noted.
    calibration: Arc<Calibration>,
}

impl Pass for QuantizeKv {
    fn id(&self) -> &'static str {
        "quantize-kv"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        graph.schedule().into_iter().filter_map(|value| self.site(graph, value)).collect()
    }
}

impl QuantizeKv {
    /// The pass with `fit` and `keep`.
    pub fn new(options: &Options) -> Result<Self, PipelineError> {
        let (fit, keep) = (options.parsed("fit")?, options.text("keep")?.into());
        Ok(QuantizeKv { fit, keep, calibration: options.calibration().clone() })
    }

    fn site(&self, graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
        let Op::Attention { heads, kv_heads, scale, p: DType::F32 } = *graph.op(value) else { return None };
        let [q, k, v] = graph.operands(value)[..] else { return None };
        let plain = [q, k, v].iter().all(|x| graph.ty(*x).dtype == DType::F32);
        if !plain || [k, v].iter().any(|x| *graph.op(*x) != Op::KvAppend) {
            return None;
        }
        let name =
            |append: ValueId| graph.op(graph.operands(append)[0]).name().map_or("attention", |name| &**name);
        let kept = [k, v].into_iter().any(|append| matches_any(&self.keep, name(append)));
        let name = name(k);
        let head_dim = graph.ty(q).shape.cols().fixed().unwrap_or(0) / heads;
        let refused = kept.then(|| format!("option `keep` is `{}`", self.keep));
        if let Some(reason) = refused.or_else(|| refusal(graph, [k, v], head_dim)) {
            self.calibration.refuse(name, reason);
            return None;
        }
        let op = Op::Attention { heads, kv_heads, scale, p: DType::E4M3 };
        Some(self.quantize_site(graph, value, op, (name, head_dim)))
    }

    fn quantize_site(
        &self,
        graph: &Graph,
        value: ValueId,
        op: Op,
        (name, head_dim): (&str, usize),
    ) -> Result<Patch, PassError> {
        let [q, k, v] = graph.operands(value)[..] else { unreachable!("attention has three operands") };
        let mut patch = Patch::new(name);
        let query = Op::Quantize { to: Format::query(head_dim), fit: Fit::Absmax };
        let q = patch.add(graph, query, &[q.into()])?;
        let k = self.append_codes(graph, &mut patch, k, head_dim)?;
        let v = self.append_codes(graph, &mut patch, v, head_dim)?;
        let attention = patch.add(graph, op, &[q, k, v])?;
        patch.replace(value, attention);
        Ok(patch)
    }

    /// A `kv_append` of codes instead of numbers, into a cache of the same name.
    fn append_codes(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        append: ValueId,
        head_dim: usize,
    ) -> Result<Ref, PassError> {
        let [cache, rows] = graph.operands(append)[..] else { unreachable!("kv_append has two operands") };
        let to = Format::kv(head_dim);
        let name = graph.op(cache).name().cloned().unwrap_or_else(|| "cache".into());
        let cache = patch.cache(name, graph.ty(cache).with_format(&to));
        let codes = patch.add(graph, Op::Quantize { to, fit: self.fit }, &[rows.into()])?;
        Ok(patch.add(graph, Op::KvAppend, &[cache, codes])?)
    }
}

/// Why a cache is left alone.
fn refusal(graph: &Graph, appends: [ValueId; 2], head_dim: usize) -> Option<String> {
    if head_dim > WIDEST_HEAD {
        let widest = format!("wider than the {WIDEST_HEAD} channels that one scale covers");
        return Some(format!("heads of {head_dim} are {widest}"));
    }
    let shared = |x: &ValueId| graph.users(*x).len() != 1 || graph.outputs.contains(x);
    appends.iter().any(shared).then(|| "something else reads its content, too".into())
}
