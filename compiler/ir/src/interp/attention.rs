//! Attention as the contract defines it (FireQ section 6), one query and head at a time.

use rayon::prelude::*;

use super::ops::dot;
use super::{Data, Tensor};
use crate::{DType, e4m3};

/// Causal attention: query `t` of `T` sees keys `0 ..= S−T+t`. Returns `f32[T, heads·D]`.
pub(super) fn attention(
    heads: usize,
    kv_heads: usize,
    scale: f32,
    p: DType,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Vec<f32> {
    let (tokens, keys, width) = (q.rows(), k.rows(), q.cols() / heads);
    let past = keys - tokens.min(keys);
    let ((q, q_scales), k, v) = (query(q, heads), k.to_f32(), v.to_f32());
    let log2_scale = f64::from(scale * std::f32::consts::LOG2_E);
    let one = |unit: usize| {
        let (t, h) = (unit / heads, unit % heads);
        let kv_head = h / (heads / kv_heads);
        let row = |data: &'_ [f32], s: usize| -> Vec<f32> {
            data[(s * kv_heads + kv_head) * width..][..width].to_vec()
        };
        let query = &q[unit * width..][..width];
        let seen = (past + t + 1).min(keys);
        let factor = f64::from(q_scales[unit]) * log2_scale;
        let scores = (0..seen).map(|s| (dot(query, &row(&k, s)) * factor) as f32).collect();
        weighted_sum(&probabilities(scores, p), (0..seen).map(|s| row(&v, s)), width)
    };
    (0..tokens * heads).into_par_iter().flat_map_iter(one).collect()
}

/// The query before its scales, and a scale for each token and head: 1 where it has none.
fn query(q: &Tensor, heads: usize) -> (Vec<f32>, Vec<f32>) {
    match &q.data {
        Data::Quant(x) if x.format.dtype == DType::E4M3 => {
            (x.codes.iter().map(|code| e4m3::decode(*code as u8)).collect(), x.scales[0].clone())
        }
        _ => (q.to_f32(), vec![1.0; q.rows() * heads]),
    }
}

/// `2^(s − max)`; for `p=e4m3` under the maximum rounded up to a whole number, times 448 and rounded. Not normalized: the sum
/// divides the output.
///
/// Kernels that read keys in pieces know a running maximum only. Under whole numbers their sums are rescaled by powers of
/// two, which is exact, so that where probabilities are rounded does not depend on the pieces.
fn probabilities(scores: Vec<f32>, p: DType) -> Vec<f32> {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = if p == DType::E4M3 { max.ceil() } else { max };
    let exp2 = |s: f32| f64::from(s - max).exp2();
    match p {
        DType::E4M3 => {
            scores.into_iter().map(|s| e4m3::round((exp2(s) * f64::from(e4m3::MAX)) as f32)).collect()
        }
        _ => scores.into_iter().map(|s| exp2(s) as f32).collect(),
    }
}

/// `Σ p·v / Σ p`, the sum taken of the probabilities as rounded.
fn weighted_sum(p: &[f32], rows: impl Iterator<Item = Vec<f32>>, width: usize) -> Vec<f32> {
    let mut out = vec![0.0f64; width];
    for (p, row) in p.iter().zip(rows) {
        out.iter_mut().zip(row).for_each(|(o, v)| *o += f64::from(*p) * f64::from(v));
    }
    let sum: f64 = p.iter().map(|p| f64::from(*p)).sum();
    out.into_iter().map(|o| (o / sum) as f32).collect()
}
