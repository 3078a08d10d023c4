//! The kernels of attention over pages: for few tokens that of single tokens, for more that of prefill.

use fireq_ir::DType;
use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Kernel, Launch};
use fireq_kernels::cuda::program::{Count, When};
use fireq_kernels::cuda::{DecodeAttention, Prefill, PrefillConfig, Qkv, Unit, Unsupported, gather_pages};

use super::bind::Binder;
use super::heads::{attended, of_attention};
use super::select::Run;

/// The most tokens of a step that each read the whole cache, of 131 bytes for a key with heads of 128 channels. Prefill reads it
/// once, writes 256 bytes of FP8 for each and reads these again: as much as five tokens do.
const FEW: usize = 4;
/// Tiles of keys that prefill has on their way.
const STAGES: usize = 2;

/// What an attention runs; or why it has no kernels.
pub(super) fn attention(binder: &Binder<'_>, launch: &Launch) -> Result<Vec<Run>, String> {
    let Kernel::Attention { heads, kv_heads, p, scale } = launch.kernel else {
        return Err("no attention".into());
    };
    let of = attended(binder.plan, launch)?;
    let before = of_attention(binder.plan, &of)?;
    if p != DType::E4M3 {
        return Err(format!("probabilities are {p}, and not rounded to E4M3"));
    }
    let decode = DecodeAttention { heads, kv_heads, head: before.head, page: before.page };
    let prefill = prefill(&before);
    let run = |unit: Result<Unit, Unsupported>, arguments, rows, from, to| {
        let unit = unit.map_err(|e| e.to_string())?;
        let tokens = Some(TokenRange { from, to });
        Ok::<_, String>(Run { unit, tokens, when: When::Longest(from, to), rows, arguments })
    };
    let few = few(&before);
    let mut runs = vec![];
    if few != Some(0) {
        let [each, combine] = binder.decode(&of, &decode, scale)?;
        runs.push(run(decode.unit(), each, Count::Tokens, 1, few)?);
        runs.push(run(decode.combine(), combine, Count::Parted, 1, few)?);
    }
    if let (Some((prefill, unit)), Some(few)) = (prefill, few) {
        let [gather, attend] = binder.prefill(&of, &decode, &prefill, scale);
        let alone = decode.check().err().map(|reason| format!("; it has single tokens, too: {reason}"));
        let unit = Unit { reason: format!("{}{}", unit.reason, alone.unwrap_or_default()), ..unit };
        runs.push(run(gather_pages(decode.pages()), gather, Count::Past, few + 1, None)?);
        runs.push(run(Ok(unit), attend, Count::Queries, few + 1, None)?);
    }
    Ok(runs)
}

/// The most tokens of a sequence that each read the cache by themselves; any number where prefill has no such heads, and none
/// where only it has.
pub(super) fn few(before: &Qkv) -> Option<usize> {
    let Qkv { q_heads: heads, kv_heads, head, page, .. } = *before;
    let alone = DecodeAttention { heads, kv_heads, head, page }.check().is_err();
    prefill(before).map(|_| if alone { 0 } else { FEW })
}

/// The unit of prefill with as many tiles in flight as registers hold, if there is one.
pub(super) fn prefill(before: &Qkv) -> Option<(Prefill, Unit)> {
    let Qkv { q_heads, kv_heads, head, .. } = *before;
    let of = Prefill { heads: q_heads, kv_heads, head, output: DType::F32 };
    let unit = |in_flight| {
        let reason = "two warpgroups share keys and values; sums of probabilities come from the tensor cores";
        of.unit(PrefillConfig { stages: STAGES, in_flight }, reason.into()).ok()
    };
    unit(3).or_else(|| unit(2)).map(|unit| (of, unit))
}
