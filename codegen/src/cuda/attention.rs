//! The kernels of attention over pages: for few tokens that of single tokens, for more that of prefill.

use fireq_ir::DType;
use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Kernel, Launch, Plan};
use fireq_kernels::cuda::{DecodeAttention, Prefill, PrefillConfig, Unit, Unsupported, gather_pages};

use super::heads::of_attention;

/// The most tokens of a step that each read the whole cache, of 131 bytes for a key with heads of 128 channels. Prefill reads it
/// once, writes 256 bytes of FP8 for each and reads these again: as much as five tokens do.
const FEW: usize = 4;
/// Tiles of keys that prefill has on their way.
const STAGES: usize = 2;

/// The units of an attention, with the numbers of tokens that they are for; or why it has none.
pub(super) fn attention(plan: &Plan, launch: &Launch) -> Result<Vec<(Unit, TokenRange)>, String> {
    let Kernel::Attention { heads, kv_heads, p, .. } = launch.kernel else {
        return Err("no attention".into());
    };
    let before = of_attention(plan, launch)?;
    if p != DType::E4M3 {
        return Err(format!("probabilities are {p}, and not rounded to E4M3"));
    }
    let decode = DecodeAttention { heads, kv_heads, head: before.head, page: before.page };
    let prefill = prefill(&Prefill { heads, kv_heads, head: before.head, output: DType::F32 });
    let of = |unit: Result<Unit, Unsupported>, from, to| {
        unit.map(|unit| (unit, TokenRange { from, to })).map_err(|e| e.to_string())
    };
    // Where only one of both has such heads, it serves any number of tokens: each reads the cache by itself, or what is past
    // is decoded for a single one.
    let (few, alone) = match (decode.check(), &prefill) {
        (Ok(()), Some(_)) => (Some(FEW), String::new()),
        (Err(reason), Some(_)) => (Some(0), format!("; it has single tokens, too: {reason}")),
        (_, None) => (None, String::new()),
    };
    let mut units = vec![];
    if few != Some(0) {
        units.extend([of(decode.unit(), 1, few)?, of(decode.combine(), 1, few)?]);
    }
    if let (Some(prefill), Some(few)) = (prefill, few) {
        units.push(of(gather_pages(decode.pages()), few + 1, None)?);
        units.push(of(Ok(Unit { reason: format!("{}{alone}", prefill.reason), ..prefill }), few + 1, None)?);
    }
    Ok(units)
}

/// The unit of prefill with as many tiles in flight as registers hold, if there is one.
fn prefill(of: &Prefill) -> Option<Unit> {
    let unit = |in_flight| {
        let reason = "two warpgroups share keys and values; sums of probabilities come from the tensor cores";
        of.unit(PrefillConfig { stages: STAGES, in_flight }, reason.into()).ok()
    };
    unit(3).or_else(|| unit(2))
}
