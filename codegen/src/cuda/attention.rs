//! The kernels of attention over pages: for few tokens that of single tokens, for more that of prefill.

use std::cell::RefCell;
use std::rc::Rc;

use fireq_ir::DType;
use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Kernel, Launch};
use fireq_kernels::cuda::cost_prefill::{SHORT_ROW, choose, reason};
use fireq_kernels::cuda::program::Count;
use fireq_kernels::cuda::{
    DecodeAttention, Prefill, PrefillConfig, Qkv, Sequence, Unit, Unsupported, gather_pages,
};

use super::bind::Binder;
use super::heads::{attended, of_attention};
use super::run::{Run, Steps};

/// The most tokens of a step that each read the whole cache, of 131 bytes for a key with heads of 128 channels. Prefill reads it
/// once, writes 256 bytes of FP8 for each and reads these again: as much as five tokens do.
const FEW: usize = 4;
/// Prompts that prefill is configured for: as many tokens in rows that are short, and in longer ones.
const PROMPTS: [[usize; 2]; 2] = [[16, SHORT_ROW], [4, 4 * SHORT_ROW]];

/// What an attention runs; or why it has no kernels.
pub(super) fn attention(
    binder: &Binder<'_>,
    pipelines: &Pipelines,
    launch: &Launch,
) -> Result<Vec<Run>, String> {
    let Kernel::Attention { heads, kv_heads, p, scale } = launch.kernel else {
        return Err("no attention".into());
    };
    let of = attended(binder.plan, launch)?;
    let before = of_attention(binder.plan, &of)?;
    if p != DType::E4M3 {
        return Err(format!("probabilities are {p}, and not rounded to E4M3"));
    }
    let decode = DecodeAttention { heads, kv_heads, head: before.head, page: before.page };
    let run = |unit: Result<Unit, Unsupported>, arguments, rows, steps: Steps| {
        let unit = unit.map_err(|e| e.to_string())?;
        Ok::<_, String>(Run { rows, ..Run::of(unit, arguments) }.of_longest(steps))
    };
    let (few, mut runs) = (pipelines.few(&before), vec![]);
    if few != Some(0) {
        let [each, combine] = binder.decode(&of, &decode, scale)?;
        let steps = TokenRange { from: 1, to: few }.into();
        runs.push(run(decode.unit(), each, Count::Tokens, steps)?);
        runs.push(run(decode.combine(), combine, Count::Parted, steps)?);
    }
    let Some(few) = few else { return Ok(runs) };
    let many = TokenRange { from: few + 1, to: None };
    let gather = binder.gather(&of, &decode);
    runs.push(run(gather_pages(decode.pages()), gather, Count::Past, many.into())?);
    let alone = decode.check().err().map(|reason| format!("; it has single tokens, too: {reason}"));
    let prefill = of_prefill(&before);
    for Pipeline { config, unit, keys } in &*pipelines.of(&prefill) {
        let reason = format!("{}{}", unit.reason, alone.as_deref().unwrap_or_default());
        let unit = Unit { reason, ..unit.clone() };
        let arguments = binder.prefill(&of, &prefill, config, scale);
        let steps = Steps { tokens: Some(many), keys: Some(*keys) };
        runs.push(run(Ok(unit), arguments, Count::Queries, steps)?);
    }
    Ok(runs)
}

/// A kernel of prefill, and the numbers of keys that it is for.
struct Pipeline {
    config: PrefillConfig,
    unit: Unit,
    keys: TokenRange,
}

/// Kernels of prefill for each attention, chosen once: layers have the same.
#[derive(Default)]
pub(super) struct Pipelines {
    known: RefCell<Vec<(Prefill, Rc<[Pipeline]>)>>,
}

impl Pipelines {
    fn of(&self, prefill: &Prefill) -> Rc<[Pipeline]> {
        let mut known = self.known.borrow_mut();
        if let Some((_, pipelines)) = known.iter().find(|(of, _)| of == prefill) {
            return pipelines.clone();
        }
        let pipelines: Rc<[Pipeline]> = prefills(prefill).into();
        known.push((*prefill, pipelines.clone()));
        pipelines
    }

    /// The most tokens of a sequence that each read the cache by themselves; any number where prefill has no such heads, and
    /// none where only it has.
    pub fn few(&self, before: &Qkv) -> Option<usize> {
        let Qkv { q_heads: heads, kv_heads, head, page, .. } = *before;
        let alone = DecodeAttention { heads, kv_heads, head, page }.check().is_err();
        (!self.of(&of_prefill(before)).is_empty()).then_some(if alone { 0 } else { FEW })
    }
}

fn of_prefill(before: &Qkv) -> Prefill {
    let Qkv { q_heads: heads, kv_heads, head, .. } = *before;
    Prefill { heads, kv_heads, head, output: DType::F32, causal: true }
}

/// What the cost model has for short rows and for long ones, each with its numbers of keys; none for heads without a kernel.
fn prefills(of: &Prefill) -> Vec<Pipeline> {
    let keys = [TokenRange { from: 1, to: Some(SHORT_ROW) }, TokenRange { from: SHORT_ROW + 1, to: None }];
    let pipeline = |([count, tokens], keys): ([usize; 2], TokenRange)| {
        let prompt = |n| Sequence { query: n * tokens, tokens, past: 0, key: n * tokens };
        let prompts: Vec<Sequence> = (0..count).map(prompt).collect();
        let (config, estimate) = choose(of, &prompts);
        let unit = of.unit(config, reason(&prompts, &config, &estimate)).ok()?;
        Some(Pipeline { config, unit, keys })
    };
    PROMPTS.into_iter().zip(keys).filter_map(pipeline).collect()
}
