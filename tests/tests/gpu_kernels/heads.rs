//! The kernel between projections and attention: queries, caches and workspaces to the bit.

use fireq_ir::{DType, Fit};
use fireq_kernels::cuda::{BLOCK, Qkv, params, value_position};

use super::device::{Device, UNTOUCHED, device};
use super::oracle::{Case, elements_e4m3, parts};

/// A case: what the kernel is specialized for, and whether there are scales and shifts behind rope.
struct Heads {
    qkv: Qkv,
    scaled: bool,
    shifted: bool,
}

/// Rows that a cache has room for.
const CONTEXT: usize = 64;

impl Heads {
    /// The operations that the kernel stands for, one by one.
    fn case(&self, tokens: usize, past: usize) -> Case {
        let Qkv { q_heads, kv_heads, head, k_fit, v_fit, scales } = self.qkv;
        let (q, kv) = (q_heads * head, kv_heads * head);
        let cache = format!("i4<g{head}:{scales}>");
        let mut lines = vec![
            format!("input {{name=\"q\"}} : f32[T,{q}]"),
            format!("input {{name=\"k\"}} : f32[T,{kv}]"),
            format!("input {{name=\"v\"}} : f32[T,{kv}]"),
            format!("input {{name=\"table\"}} : f32[T,{head}]"),
            format!("cache {{name=\"k.0\"}} : {cache}[P,{kv}]"),
            format!("cache {{name=\"v.0\"}} : {cache}[P,{kv}]"),
        ];
        let mut push = |line: String| {
            lines.push(line);
            lines.len() - 1
        };
        let turned = [("q", 0, q), ("k", 1, kv)].map(|(name, x, cols)| {
            let mut x = push(format!("rope %{x}, %3 : f32[T,{cols}]"));
            for (op, wanted) in [("scale", self.scaled), ("bias", self.shifted)] {
                if wanted {
                    let by = push(format!("const {{name=\"{name} {op}\"}} : f32[{cols}]"));
                    x = push(format!("{op} %{x}, %{by} : f32[T,{cols}]"));
                }
            }
            x
        });
        let query =
            push(format!("quantize %{} {{to=e4m3<g{head}:f32>}} : e4m3<g{head}:f32>[T,{q}]", turned[0]));
        let appended = [(4, turned[1], k_fit), (5, 2, v_fit)].map(|(before, rows, fit)| {
            push(format!("quantize_append %{before}, %{rows} {{fit={fit}}} : {cache}[P+T,{kv}]"))
        });
        let mut body: String = lines.iter().enumerate().map(|(n, line)| format!("%{n} = {line}\n")).collect();
        body += &format!("return %{query}, %{}, %{}", appended[0], appended[1]);
        Case::new(&body, [tokens, past, 1])
    }
}

/// Rows of a merged projection: queries, keys and values side by side.
fn merged(case: &Case, tokens: usize) -> Vec<f32> {
    let all = ["q", "k", "v"].map(|name| case.input_f32(name));
    let row = |t: usize| {
        let part = move |x: &Vec<f32>| x[x.len() / tokens * t..][..x.len() / tokens].to_vec();
        all.iter().flat_map(part).collect::<Vec<_>>()
    };
    (0..tokens).flat_map(row).collect()
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
    let mut vector = |name: &str, wanted| if wanted { gpu.put(name, &case.constant(name)) } else { 0 };
    let [q_scale, k_scale] = ["q scale", "k scale"].map(|name| vector(name, heads.scaled));
    let [q_shift, k_shift] = ["q bias", "k bias"].map(|name| vector(name, heads.shifted));
    let (merged, stride) = (gpu.put_f32("qkv", &merged(&case, tokens)), (q + 2 * kv) as u32);
    let params = params::Qkv {
        q: merged,
        k: merged + 4 * q as u64,
        v: merged + 4 * (q + kv) as u64,
        table: gpu.put("table", &case.input("table")),
        q_scale,
        q_shift,
        k_scale,
        k_shift,
        q_codes,
        q_scales,
        k_codes: k_cache[0],
        k_scales: k_cache[1],
        v_codes: v_cache[0],
        v_scales: v_cache[1],
        k_workspace,
        v_workspace,
        workspace_stride: CONTEXT as u32,
        q_stride: stride,
        k_stride: stride,
        v_stride: stride,
        past: past as u32,
        tokens: tokens as u32,
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
    let behind = rows.end..rows.end.next_multiple_of(BLOCK);
    let keys = elements_e4m3(case.cache("k.0"));
    let found = gpu.bytes(k_workspace, CONTEXT * kv);
    let values = elements_e4m3(case.cache("v.0"));
    let transposed = gpu.bytes(v_workspace, CONTEXT * kv);
    for row in 0..CONTEXT {
        let place = row / BLOCK * BLOCK + value_position(row % BLOCK);
        for channel in 0..kv {
            let at = row * kv + channel;
            let [key, value] =
                [&keys, &values].map(|all| if rows.contains(&row) { all[at] } else { UNTOUCHED });
            assert_eq!(found[at], key, "key {row}, channel {channel}: {what}");
            let found = transposed[channel * CONTEXT + place];
            let is_right = if behind.contains(&row) { matches!(found, 0 | 0x80) } else { found == value };
            assert!(is_right, "value {row}, channel {channel}: {found:#x}, {value:#x}: {what}");
        }
    }
}

/// Query heads, key heads and their channels; fits of keys and values; whether scaled and shifted.
fn heads(sizes: [usize; 3], fits: [Fit; 2], scales: DType, [scaled, shifted]: [bool; 2]) -> Heads {
    let ([q_heads, kv_heads, head], [k_fit, v_fit]) = (sizes, fits);
    Heads { qkv: Qkv { q_heads, kv_heads, head, k_fit, v_fit, scales }, scaled, shifted }
}

#[test]
fn queries_caches_and_workspaces_are_the_interpreters_to_the_bit() {
    use DType::{BF16, E4M3, F32};
    use Fit::{Absmax, Clipped, Signed};
    let Some(mut gpu) = device() else { return };
    let cases = [
        heads([4, 2, 64], [Absmax, Absmax], E4M3, [false, false]),
        heads([4, 1, 128], [Clipped, Clipped], E4M3, [true, true]),
        heads([2, 2, 256], [Signed, Clipped], E4M3, [true, false]),
        heads([3, 1, 80], [Clipped, Signed], E4M3, [false, true]),
        heads([2, 1, 20], [Clipped, Absmax], E4M3, [true, true]),
        heads([2, 1, 64], [Clipped, Signed], BF16, [true, false]),
        heads([2, 1, 48], [Signed, Clipped], F32, [false, false]),
    ];
    for heads in &cases {
        for (tokens, past) in [(1, 0), (1, 37), (5, 14), (33, 16), (21, 0)] {
            check(&mut gpu, heads, tokens, past);
        }
    }
}
