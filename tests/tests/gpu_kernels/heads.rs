//! The kernel between projections and attention: queries, caches and workspaces to the bit.

use fireq_ir::{DType, Fit};
use fireq_kernels::cuda::{Qkv, params};

use super::device::{Device, UNTOUCHED, device};
use super::oracle::{Case, elements_e4m3, parts};

/// A case: what the kernel is specialized for, and whether there are scales behind rope.
struct Heads {
    qkv: Qkv,
    scaled: bool,
}

/// Rows that a cache has room for.
const CONTEXT: usize = 64;

impl Heads {
    fn case(&self, tokens: usize, past: usize) -> Case {
        let Qkv { q_heads, kv_heads, head, k_fit, v_fit, scales } = self.qkv;
        let (q, kv) = (q_heads * head, kv_heads * head);
        let cache = format!("i4<g{head}:{scales}>");
        let [s, inverse] = if self.scaled { [", %6", ", %5"] } else { ["", ""] };
        let body = format!(
            "%0 = input {{name=\"q\"}} : f32[T,{q}]\n%1 = input {{name=\"k\"}} : f32[T,{kv}]\n\
             %2 = input {{name=\"v\"}} : f32[T,{kv}]\n%3 = input {{name=\"table\"}} : f32[T,{head}]\n\
             %4 = cache {{name=\"k.0\"}} : {cache}[P,{kv}]\n%5 = const {{name=\"inverse\"}} : f32[{q}]\n\
             %6 = const {{name=\"s\"}} : f32[{kv}]\n%7 = cache {{name=\"v.0\"}} : {cache}[P,{kv}]\n\
             %8 = rope_quantize %0, %3{inverse} {{to=e4m3<g{head}:f32>}} : e4m3<g{head}:f32>[T,{q}]\n\
             %9 = rope_append %4, %1, %3{s} {{fit={k_fit}}} : {cache}[P+T,{kv}]\n\
             %10 = quantize_append %7, %2 {{fit={v_fit}}} : {cache}[P+T,{kv}]\n\
             return %8, %9, %10"
        );
        Case::new(&body, [tokens, past, 1])
    }
}

/// The parts of a cache with room for [`CONTEXT`] rows, the first of them filled.
fn cache(gpu: &mut Device, name: &str, before: &[Vec<u8>], rows: usize, row_bytes: [usize; 2]) -> [u64; 2] {
    [0, 1].map(|n| {
        let mut bytes = before.get(n).cloned().unwrap_or_default();
        assert_eq!(bytes.len(), rows * row_bytes[n]);
        bytes.resize(CONTEXT * row_bytes[n], UNTOUCHED);
        gpu.put(name, &bytes)
    })
}

fn check(gpu: &mut Device, heads: &Heads, tokens: usize, past: usize) {
    let what = format!("{:?}, {tokens} tokens behind {past}", heads.qkv);
    let case = heads.case(tokens, past);
    let Qkv { q_heads, kv_heads, head, scales, .. } = heads.qkv;
    let (q, kv) = (q_heads * head, kv_heads * head);
    let row_bytes = [kv / 2, kv_heads * scales.bits() / 8];
    let [k_cache, v_cache] =
        ["k.0", "v.0"].map(|name| cache(gpu, name, &parts(&case.caches[name]), past, row_bytes));
    let (q_codes, q_scales) = (gpu.space("q codes", tokens * q), gpu.space("q scales", 4 * tokens * q_heads));
    let workspace = scales == DType::E4M3;
    let mut space = |name| if workspace { gpu.space(name, CONTEXT * kv) } else { 0 };
    let (k_workspace, v_workspace) = (space("k workspace"), space("v workspace"));
    let mut scale = |name: &str| if heads.scaled { gpu.put(name, &case.constant(name)) } else { 0 };
    let (q_scale, k_scale) = (scale("inverse"), scale("s"));
    let params = params::Qkv {
        q: gpu.put("q", &case.input("q")),
        k: gpu.put("k", &case.input("k")),
        v: gpu.put("v", &case.input("v")),
        table: gpu.put("table", &case.input("table")),
        q_scale,
        k_scale,
        q_codes,
        q_scales,
        k_codes: k_cache[0],
        k_scales: k_cache[1],
        v_codes: v_cache[0],
        v_scales: v_cache[1],
        k_workspace,
        v_workspace,
        workspace_stride: CONTEXT as u32,
        q_stride: q as u32,
        k_stride: kv as u32,
        v_stride: kv as u32,
        past: past as u32,
        tokens: tokens as u32,
        ..params::Qkv::default()
    };
    gpu.launch(&heads.qkv.unit().unwrap(), tokens, past, &params);
    let expected = parts(case.output(0));
    assert_eq!(gpu.bytes(q_scales, 4 * tokens * q_heads), expected[1], "query scales: {what}");
    assert_eq!(gpu.bytes(q_codes, tokens * q), expected[0], "query codes: {what}");
    for (name, addresses) in [("k.0", k_cache), ("v.0", v_cache)] {
        for (n, part) in ["codes", "scales"].into_iter().enumerate() {
            let mut expected = parts(case.cache(name)).remove(n);
            expected.resize(CONTEXT * row_bytes[n], UNTOUCHED);
            assert_eq!(gpu.bytes(addresses[n], expected.len()), expected, "{part} of {name}: {what}");
        }
    }
    if !workspace {
        return;
    }
    let rows = past..past + tokens;
    let keys = elements_e4m3(case.cache("k.0"));
    let found = gpu.bytes(k_workspace, CONTEXT * kv);
    let values = elements_e4m3(case.cache("v.0"));
    let transposed = gpu.bytes(v_workspace, CONTEXT * kv);
    for row in 0..CONTEXT {
        for channel in 0..kv {
            let at = row * kv + channel;
            let [key, value] = [&keys, &values].map(|all| if rows.contains(&row) { all[at] } else { UNTOUCHED });
            assert_eq!(found[at], key, "key {row}, channel {channel}: {what}");
            assert_eq!(transposed[channel * CONTEXT + row], value, "value {row}, channel {channel}: {what}");
        }
    }
}

fn heads(sizes: [usize; 3], fits: [Fit; 2], scales: DType, scaled: bool) -> Heads {
    let ([q_heads, kv_heads, head], [k_fit, v_fit]) = (sizes, fits);
    Heads { qkv: Qkv { q_heads, kv_heads, head, k_fit, v_fit, scales }, scaled }
}

#[test]
fn queries_caches_and_workspaces_are_the_interpreters_to_the_bit() {
    let Some(mut gpu) = device() else { return };
    let cases = [
        heads([4, 2, 64], [Fit::Absmax, Fit::Absmax], DType::E4M3, false),
        heads([4, 1, 128], [Fit::Clipped, Fit::Clipped], DType::E4M3, true),
        heads([2, 2, 256], [Fit::Signed, Fit::Clipped], DType::E4M3, true),
        heads([3, 1, 80], [Fit::Clipped, Fit::Signed], DType::E4M3, false),
        heads([2, 1, 20], [Fit::Clipped, Fit::Absmax], DType::E4M3, true),
        heads([2, 1, 64], [Fit::Clipped, Fit::Signed], DType::BF16, true),
        heads([2, 1, 48], [Fit::Signed, Fit::Clipped], DType::F32, false),
    ];
    for heads in &cases {
        for (tokens, past) in [(1, 0), (1, 37), (5, 14), (33, 16), (21, 0)] {
            check(&mut gpu, heads, tokens, past);
        }
    }
}
