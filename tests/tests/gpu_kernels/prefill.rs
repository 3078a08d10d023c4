//! Prefill attention against its formula in f64: grouped heads, pasts, tails, and scores of any size.

use fireq_ir::e4m3;
use fireq_kernels::cuda::{Prefill, PrefillConfig, params, value_position};
use fireq_tests::relative_error;

use super::device::{Device, UNTOUCHED, device};
use super::record::Near;

/// E4M3 codes of numbers below `size`, none of which repeats soon.
fn codes(count: usize, seed: usize, size: f32) -> Vec<u8> {
    let number = |i: usize| ((i * i % 8191 + i * 31 + seed * 7919) as f32 * 0.618).sin();
    (0..count).map(|i| e4m3::encode(number(i) * size)).collect()
}

/// Queries, keys, values and scales of an attention.
struct Operands {
    sizes: Prefill,
    past: usize,
    q: Vec<u8>,
    k: Vec<u8>,
    v: Vec<u8>,
    scales: Vec<f32>,
    factor: f32,
}

impl Operands {
    fn new(sizes: Prefill, tokens: usize, past: usize, size: f32) -> Self {
        let Prefill { heads, kv_heads, head } = sizes;
        let kv = (tokens + past) * kv_heads * head;
        let scale = |i: usize| size * (1.0 + (i % 7) as f32) / 448.0 / 4.0;
        Operands {
            sizes,
            past,
            q: codes(tokens * heads * head, 1, 448.0),
            k: codes(kv, 2, 1.0),
            v: codes(kv, 3, 1.0),
            scales: (0..tokens * heads).map(scale).collect(),
            factor: (head as f32).sqrt().recip() * std::f32::consts::LOG2_E,
        }
    }

    /// Values, channel by channel, as the kernel reads them.
    fn transposed(&self, pitch: usize) -> Vec<u8> {
        let cols = self.sizes.kv_heads * self.sizes.head;
        let mut all = vec![0; cols * pitch];
        for (i, value) in self.v.iter().enumerate() {
            let (key, channel) = (i / cols, i % cols);
            all[channel * pitch + key / 16 * 16 + value_position(key % 16)] = *value;
        }
        all
    }

    /// What the formula gives a query of a head: probabilities under the maximum, rounded up to a whole exponent.
    fn exact(&self, token: usize, h: usize) -> Vec<f32> {
        let Prefill { heads, kv_heads, head } = self.sizes;
        let group = h / (heads / kv_heads);
        let row = |codes: &[u8], at: usize| -> Vec<f64> {
            codes[at * head..][..head].iter().map(|code| f64::from(e4m3::decode(*code))).collect()
        };
        let (query, factor) = (row(&self.q, token * heads + h), self.scales[token * heads + h] * self.factor);
        let score = |key: usize| {
            let key = row(&self.k, key * kv_heads + group);
            query.iter().zip(&key).map(|(a, b)| a * b).sum::<f64>() * f64::from(factor)
        };
        let scores: Vec<f64> = (0..=self.past + token).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        let p = scores.iter().map(|s| f64::from(e4m3::round(((s - most).exp2() * 448.0) as f32)));
        let (mut sums, mut total) = (vec![0.0; head], 0.0);
        for (key, p) in p.enumerate() {
            total += p;
            sums.iter_mut().zip(row(&self.v, key * kv_heads + group)).for_each(|(sum, v)| *sum += p * v);
        }
        sums.into_iter().map(|sum| (sum / total) as f32).collect()
    }
}

/// Heads, kv heads, channels of a head; queries, keys before them; the size of queries; stages, tiles in flight.
fn check(sizes: [usize; 3], [tokens, past]: [usize; 2], size: f32, [stages, in_flight]: [usize; 2]) {
    let Some(mut gpu) = device() else { return };
    // Tensor cores keep fewer bits of sums than f32.
    gpu.near = Near::Relatively(2e-3);
    let sizes = Prefill { heads: sizes[0], kv_heads: sizes[1], head: sizes[2] };
    let operands = Operands::new(sizes, tokens, past, size);
    let (keys, elements) = (tokens + past, tokens * sizes.heads * sizes.head);
    let pitch = keys.next_multiple_of(16) + 16;
    let [q, k] = [("q", &operands.q), ("k", &operands.k)].map(|(name, codes)| gpu.put(name, codes));
    let v = gpu.put("v", &operands.transposed(pitch));
    let params = params::Prefill {
        q: Device::map(q, &sizes.q(tokens)),
        k: Device::map(k, &sizes.k(keys)),
        v: Device::map(v, &sizes.v(keys, pitch)),
        q_scales: gpu.put_f32("q scales", &operands.scales),
        out: gpu.space("out", 4 * elements + 64),
        factor: operands.factor,
        tokens: tokens as u32,
        past: past as u32,
        heads: sizes.heads as u32,
        repeats: (sizes.heads / sizes.kv_heads) as u32,
    };
    gpu.launch(&sizes.unit(PrefillConfig { stages, in_flight }).unwrap(), tokens, past, &params);
    let exact: Vec<f32> = (0..tokens * sizes.heads)
        .flat_map(|unit| operands.exact(unit / sizes.heads, unit % sizes.heads))
        .collect();
    let error = relative_error(&exact, &gpu.f32s(params.out, elements));
    // A probability in the middle of two codes may go either way: one in a thousand does, by a sixteenth.
    assert!(error < 5e-4, "{sizes:?}, {tokens} tokens behind {past}: {error:.1e}");
    assert_eq!(gpu.bytes(params.out + 4 * elements as u64, 64), [UNTOUCHED; 64], "behind the output");
}

#[test]
fn queries_fill_tiles_and_leave_tails() {
    check([2, 1, 128], [300, 77], 1.0, [2, 3]);
    check([1, 1, 64], [128, 0], 1.0, [3, 3]);
}

#[test]
fn grouped_heads_share_keys_and_values() {
    check([8, 2, 64], [33, 200], 1.0, [2, 3]);
    check([8, 1, 128], [5, 123], 1.0, [2, 3]);
}

#[test]
fn one_query_sees_one_key_or_many() {
    check([2, 2, 128], [1, 0], 1.0, [2, 3]);
    check([2, 2, 64], [1, 699], 1.0, [2, 2]);
}

#[test]
fn two_tiles_in_flight_give_the_same() {
    check([1, 1, 128], [130, 140], 1.0, [2, 2]);
}

#[test]
fn scores_of_ten_thousand_stay_finite() {
    check([1, 1, 128], [130, 0], 2000.0, [2, 3]);
}
