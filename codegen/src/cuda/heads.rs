//! The kernel between projections and attention: three launches that one kernel serves.

use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Kernel, Launch, Plan};
use fireq_ir::{DType, Format, Level, Per, Type};
use fireq_kernels::cuda::Qkv;
use fireq_kernels::cuda::program::Count;
use fireq_kernels::pages::TILE;

use super::attention::Pipelines;
use super::bind::{Attended, Binder};
use super::run::Run;
use super::select::cols;

/// Positions of a page.
const PAGE: usize = TILE;

/// The kernel that serves one of an attention's three producers, or why it does not. It runs for the last of them, and writes
/// workspaces where prefill reads them.
pub(super) fn heads(binder: &Binder<'_>, pipelines: &Pipelines, launch: &Launch) -> Result<Vec<Run>, String> {
    let reads =
        |l: &&Launch| matches!(l.kernel, Kernel::Attention { .. }) && l.inputs.contains(&launch.output);
    let attention = binder.plan.launches.iter().find(reads).ok_or("its result goes to no attention")?;
    let of = attended(binder.plan, attention)?;
    let qkv = of_attention(binder.plan, &of)?;
    let unit = qkv.unit().map_err(|e| e.to_string())?;
    let last = is_last(binder.plan, &of, launch);
    let few = pipelines.few(&qkv);
    let run = |workspaces, from, to| {
        let arguments = if last { binder.qkv(&of, &qkv, workspaces) } else { vec![] };
        let run = Run { rows: Count::Runs, ..Run::of(unit.clone(), arguments) };
        run.of_longest(TokenRange { from, to }.into())
    };
    let each = (few != Some(0)).then(|| run(false, 1, few));
    let many = few.map(|few| run(true, few + 1, None));
    Ok(each.into_iter().chain(many).collect())
}

/// Whether the last of the three is this one. What the others read is there still.
fn is_last(plan: &Plan, of: &Attended<'_>, launch: &Launch) -> bool {
    let at = |l: &Launch| plan.launches.iter().position(|found| found.output == l.output);
    [of.q, of.k, of.v].into_iter().all(|other| at(other) <= at(launch))
}

/// An attention with its three producers.
pub(super) fn attended<'a>(plan: &'a Plan, attention: &'a Launch) -> Result<Attended<'a>, String> {
    let producer = |n: usize| plan.launches.iter().find(|l| l.output == attention.inputs[n]);
    match [0, 1, 2].map(producer) {
        [Some(q), Some(k), Some(v)] => Ok(Attended { attention, q, k, v }),
        _ => Err("attention reads what no launch writes".into()),
    }
}

/// What the kernel before an attention is specialized for.
pub(super) fn of_attention(plan: &Plan, of: &Attended<'_>) -> Result<Qkv, String> {
    let Attended { attention, q, k, v } = *of;
    let Kernel::Attention { heads, kv_heads, .. } = attention.kernel else {
        return Err("no attention".into());
    };
    let (
        Kernel::RopeQuantize { to },
        Kernel::RopeAppend { fit: k_fit },
        Kernel::QuantizeAppend { fit: v_fit },
    ) = (&q.kernel, &k.kernel, &v.kernel)
    else {
        return Err("queries, keys and values are not rotated, quantized and appended as FireQ has it".into());
    };
    let head = cols(&plan.buffers[q.output].ty).map_or(0, |cols| cols / heads.max(1));
    require(*to == Format::query(head), || format!("queries become {to}"))?;
    require(q.inputs[1] == k.inputs[1], || "queries and keys have tables of their own".into())?;
    let scaled = [q, k].into_iter().filter_map(|l| l.inputs.get(2)).map(|b| &plan.buffers[*b].ty);
    for scale in scaled {
        require(scale.dtype == DType::F32, || format!("scales behind rope are {}", scale.dtype))?;
    }
    let scales = [k, v].map(|l| cache_scales(&plan.buffers[l.output].ty, head));
    let [Some(scales), Some(v_scales)] = scales else {
        return Err("a cache is not INT4 with one scale per head".into());
    };
    for scales in [scales, v_scales] {
        require(scales == DType::E4M3, || format!("pages of the cache have E4M3 scales, and not {scales}"))?;
    }
    Ok(Qkv { q_heads: heads, kv_heads, head, k_fit: *k_fit, v_fit: *v_fit, page: PAGE })
}

/// The format of scales of an INT4 cache that has one for each head.
fn cache_scales(cache: &Type, head: usize) -> Option<DType> {
    match cache.scheme.0[..] {
        [Level { per: Per::Group(group), dtype }] if group == head && cache.dtype == DType::I4 => Some(dtype),
        _ => None,
    }
}

fn require(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}
