//! Attention as the contract has it, in f64: every query sees all keys, which the interpreter has no operation for.

use fireq_ir::e4m3;
use fireq_tests::relative_error;

use super::super::oracle::{Case, parts};
use super::{Attention, heads};

/// Outputs of queries that see all keys, those of a case's caches.
pub fn outputs(attention: &Attention, case: &Case) -> Vec<f32> {
    outputs_of(attention, case, |_, keys| keys)
}

/// The same where the n-th query of so many keys sees the first `seen(n, keys)` of them.
fn outputs_of(attention: &Attention, case: &Case, seen: impl Fn(usize, usize) -> usize) -> Vec<f32> {
    let Attention { sizes, scale } = *attention;
    let (heads, kv_heads, width) = (sizes.heads, sizes.kv_heads, sizes.head);
    let query = parts(case.output(1));
    let numbers = |bytes: &[u8]| -> Vec<f64> { bytes.iter().map(|b| f64::from(e4m3::decode(*b))).collect() };
    let scales: Vec<f32> = query[1].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (q, [k, v]) = (numbers(&query[0]), ["k.0", "v.0"].map(|name| case.cache(name).to_f32()));
    let keys = k.len() / (kv_heads * width);
    let one = |unit: usize| {
        let (token, head) = (unit / heads, unit % heads);
        let place = |key: usize| (key * kv_heads + head / (heads / kv_heads)) * width;
        let factor = f64::from(scales[unit]) * f64::from(scale) * std::f64::consts::LOG2_E;
        let own = &q[unit * width..][..width];
        let score =
            |key| own.iter().zip(&k[place(key)..]).map(|(q, k)| q * f64::from(*k)).sum::<f64>() * factor;
        let scores: Vec<f64> = (0..seen(token, keys)).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        let round = |score: &f64| f64::from(e4m3::round(((score - most).exp2() * 448.0) as f32));
        let p: Vec<f64> = scores.iter().map(round).collect();
        let channel = |n: usize| {
            let sum = p.iter().enumerate().map(|(key, p)| p * f64::from(v[place(key) + n])).sum::<f64>();
            (sum / p.iter().sum::<f64>()) as f32
        };
        (0..width).map(channel).collect::<Vec<_>>()
    };
    (0..q.len() / width).flat_map(one).collect()
}

/// With a causal mask it is the interpreter's.
#[test]
fn the_contract_is_the_interpreters() {
    for (attention, tokens, past) in [(heads(4, 1, 64), 30, 100), (heads(2, 2, 128), 70, 0)] {
        let case = attention.case(tokens, past);
        let causal = outputs_of(&attention, &case, |token, _| past + token + 1);
        let error = relative_error(&case.output(0).to_f32(), &causal);
        assert!(error < 1e-4, "{:?}: {error:.1e}", attention.sizes);
        let all = relative_error(&case.output(0).to_f32(), &outputs(&attention, &case));
        assert!(all > 0.1, "a mask makes a difference: {all:.1e}");
    }
}
