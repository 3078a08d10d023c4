//! The kernels of attention over pages: for few tokens that of single tokens, for more that of prefill.

use fireq_ir::DType;
use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Kernel, Launch, Plan};
use fireq_kernels::cuda::cost_prefill::{SHORT_ROW, choose, reason};
use fireq_kernels::cuda::{DecodeAttention, Prefill, Sequence, Unit, Unsupported, gather_pages};

use super::heads::of_attention;
use super::select::Steps;

/// The most tokens of a step that each read the whole cache, of 131 bytes for a key with heads of 128 channels. Prefill reads it
/// once, writes 256 bytes of FP8 for each and reads these again: as much as five tokens do.
const FEW: usize = 4;
/// Prompts that prefill is configured for: as many tokens in rows that are short, and in longer ones.
const PROMPTS: [[usize; 2]; 2] = [[16, SHORT_ROW], [4, 4 * SHORT_ROW]];

/// The units of an attention, with the steps that they are for; or why it has none.
pub(super) fn attention(plan: &Plan, launch: &Launch) -> Result<Vec<(Unit, Steps)>, String> {
    let Kernel::Attention { heads, kv_heads, p, .. } = launch.kernel else {
        return Err("no attention".into());
    };
    let before = of_attention(plan, launch)?;
    if p != DType::E4M3 {
        return Err(format!("probabilities are {p}, and not rounded to E4M3"));
    }
    let decode = DecodeAttention { heads, kv_heads, head: before.head, page: before.page };
    let prefills = prefills(&Prefill { heads, kv_heads, head: before.head, output: DType::F32 });
    let of = |unit: Result<Unit, Unsupported>, from, to| {
        unit.map(|unit| (unit, TokenRange { from, to }.into())).map_err(|e| e.to_string())
    };
    // Where prefill has no such heads, each of any number of tokens reads the cache by itself.
    let few = (!prefills.is_empty()).then_some(FEW);
    let mut units = vec![of(decode.unit(), 1, few)?, of(decode.combine(), 1, few)?];
    if few.is_some() {
        units.push(of(gather_pages(decode.pages()), FEW + 1, None)?);
    }
    let tokens = Some(TokenRange { from: FEW + 1, to: None });
    units.extend(prefills.into_iter().map(|(unit, keys)| (unit, Steps { tokens, keys: Some(keys) })));
    Ok(units)
}

/// What the cost model has for short rows and for long ones, each with its numbers of keys; none for heads without a kernel.
fn prefills(of: &Prefill) -> Vec<(Unit, TokenRange)> {
    let keys = [TokenRange { from: 1, to: Some(SHORT_ROW) }, TokenRange { from: SHORT_ROW + 1, to: None }];
    let unit = |[count, tokens]: [usize; 2]| {
        let prompt = |n| Sequence { query: n * tokens, tokens, past: 0, key: n * tokens };
        let prompts: Vec<Sequence> = (0..count).map(prompt).collect();
        let (config, estimate) = choose(of, &prompts);
        of.unit(config, reason(&prompts, &config, &estimate)).ok()
    };
    PROMPTS.into_iter().zip(keys).filter_map(|(prompts, keys)| Some((unit(prompts)?, keys))).collect()
}
