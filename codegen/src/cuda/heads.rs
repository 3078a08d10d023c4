//! The kernel between projections and attention: three launches that one kernel serves.

use fireq_ir::plan::{Kernel, Launch, Plan};
use fireq_ir::{DType, Format, Level, Per, Type};
use fireq_kernels::cuda::Qkv;
use fireq_kernels::pages::TILE;

use super::select::{Found, Missing, Steps, cols};

/// Positions of a page.
const PAGE: usize = TILE;

/// The kernel that serves one of an attention's three producers, or why it does not.
pub(super) fn heads(plan: &Plan, launch: &Launch) -> Result<Found, String> {
    let reads =
        |l: &&Launch| matches!(l.kernel, Kernel::Attention { .. }) && l.inputs.contains(&launch.output);
    let attention = plan.launches.iter().find(reads).ok_or("its result goes to no attention")?;
    let unit = of_attention(plan, attention)?.unit();
    Ok(unit
        .map(|unit| (unit, Steps::default()))
        .map_err(|e| Missing { name: launch.symbol.to_string(), reason: format!("no kernel: {e}") }))
}

/// What the kernel before an attention is specialized for.
pub(super) fn of_attention(plan: &Plan, attention: &Launch) -> Result<Qkv, String> {
    let Kernel::Attention { heads, kv_heads, .. } = attention.kernel else {
        return Err("no attention".into());
    };
    let producer = |n: usize| plan.launches.iter().find(|l| l.output == attention.inputs[n]);
    let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(producer) else {
        return Err("attention reads what no launch writes".into());
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
