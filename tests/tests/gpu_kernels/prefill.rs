//! Prefill attention against the interpreter's: grouped heads, pasts, tails, and scores of any size.

use fireq_kernels::cuda::{Prefill, PrefillConfig, params, value_position};
use fireq_tests::relative_error;

use super::device::{Device, UNTOUCHED, device};
use super::oracle::{Case, elements_e4m3, parts};
use super::record::Near;

/// An attention, and what its scores are multiplied with.
#[derive(Clone, Copy)]
struct Attention {
    sizes: Prefill,
    scale: f32,
}

impl Attention {
    /// Queries are quantized and rows appended to the caches before.
    fn case(&self, tokens: usize, past: usize) -> Case {
        let Prefill { heads, kv_heads, head } = self.sizes;
        let (q, kv, scale) = (heads * head, kv_heads * head, self.scale);
        let cache = format!("i4<g{head}:e4m3>");
        let body = format!(
            "%0 = input {{name=\"q\"}} : f32[T,{q}]
             %1 = input {{name=\"k\"}} : f32[T,{kv}]
             %2 = input {{name=\"v\"}} : f32[T,{kv}]
             %3 = cache {{name=\"k.0\"}} : {cache}[P,{kv}]
             %4 = cache {{name=\"v.0\"}} : {cache}[P,{kv}]
             %5 = quantize %0 {{to=e4m3<g{head}:f32>}} : e4m3<g{head}:f32>[T,{q}]
             %6 = quantize_append %3, %1 {{fit=clipped}} : {cache}[P+T,{kv}]
             %7 = quantize_append %4, %2 {{fit=clipped}} : {cache}[P+T,{kv}]
             %8 = attention %5, %6, %7 {{heads={heads}, kv_heads={kv_heads}, scale={scale}, p=e4m3}} : f32[T,{q}]
             return %8, %5"
        );
        Case::new(&body, [tokens, past, 1])
    }
}

/// Values, channel by channel in rows of `pitch`, as the kernel reads them.
fn transposed(values: &[u8], cols: usize, pitch: usize) -> Vec<u8> {
    let mut all = vec![0; cols * pitch];
    for (i, value) in values.iter().enumerate() {
        let (key, channel) = (i / cols, i % cols);
        all[channel * pitch + key / 16 * 16 + value_position(key % 16)] = *value;
    }
    all
}

/// One sequence of `tokens` queries behind `past` others; stages and tiles in flight.
fn check(attention: Attention, [tokens, past]: [usize; 2], [stages, in_flight]: [usize; 2]) {
    let Some(mut gpu) = device() else { return };
    // Tensor cores keep fewer bits of sums than f32.
    gpu.near = Near::Relatively(2e-3);
    let case = attention.case(tokens, past);
    let sizes = attention.sizes;
    let (keys, elements) = (tokens + past, tokens * sizes.heads * sizes.head);
    let pitch = keys.next_multiple_of(16) + 16;
    let query = parts(case.output(1));
    let q = gpu.put("q", &query[0]);
    let k = gpu.put("k", &elements_e4m3(case.cache("k.0")));
    let values = elements_e4m3(case.cache("v.0"));
    let v = gpu.put("v", &transposed(&values, sizes.kv_heads * sizes.head, pitch));
    let params = params::Prefill {
        q: Device::map(q, &sizes.q(tokens)),
        k: Device::map(k, &sizes.k(keys)),
        v: Device::map(v, &sizes.v(keys, pitch)),
        q_scales: gpu.put("q scales", &query[1]),
        out: gpu.space("out", 4 * elements + 64),
        factor: attention.scale * std::f32::consts::LOG2_E,
        tokens: tokens as u32,
        past: past as u32,
        heads: sizes.heads as u32,
        repeats: (sizes.heads / sizes.kv_heads) as u32,
    };
    gpu.launch(&sizes.unit(PrefillConfig { stages, in_flight }).unwrap(), tokens, past, &params);
    let error = relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, elements));
    // A probability in the middle of two codes may go either way: one in a thousand does, by a sixteenth.
    let what = format!("{sizes:?}, scores times {}, {tokens} tokens behind {past}", attention.scale);
    assert!(error < 5e-4, "{what}: {error:.1e}");
    eprintln!("{what}: {error:.1e}");
    assert_eq!(gpu.bytes(params.out + 4 * elements as u64, 64), [UNTOUCHED; 64], "behind the output");
}

/// Heads, kv heads, channels of a head, with the usual scale of scores.
fn heads(heads: usize, kv_heads: usize, head: usize) -> Attention {
    Attention { sizes: Prefill { heads, kv_heads, head }, scale: (head as f32).sqrt().recip() }
}

#[test]
fn queries_fill_tiles_and_leave_tails() {
    check(heads(2, 2, 128), [300, 77], [2, 3]);
    check(heads(1, 1, 64), [128, 0], [3, 3]);
    check(heads(1, 1, 128), [577, 123], [2, 3]);
    check(heads(1, 1, 64), [257, 0], [2, 2]);
}

#[test]
fn grouped_heads_share_keys_and_values() {
    check(heads(4, 1, 64), [33, 200], [2, 3]);
    check(heads(8, 2, 128), [37, 92], [2, 2]);
    check(heads(8, 1, 128), [5, 123], [2, 3]);
}

#[test]
fn one_query_sees_one_key_or_many() {
    check(heads(2, 2, 128), [1, 0], [2, 3]);
    check(heads(2, 2, 64), [1, 699], [2, 2]);
    check(heads(2, 1, 128), [3, 128], [2, 3]);
}

#[test]
fn two_tiles_in_flight_give_the_same() {
    check(heads(1, 1, 128), [130, 140], [2, 2]);
}

/// Products of queries and keys are about a hundred.
#[test]
fn scores_of_ten_thousand_stay_finite() {
    check(Attention { scale: 1000.0, ..heads(1, 1, 128) }, [130, 0], [2, 3]);
    check(Attention { scale: 1000.0, ..heads(4, 1, 64) }, [21, 190], [2, 2]);
}
