//! Prefill attention against the interpreter's: grouped heads, pasts, tails, and scores of any size.

mod contract;
mod faults;
mod full;

use fireq_ir::DType;
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::{Prefill, PrefillConfig, QUERIES, Sequence, value_position};
use fireq_kernels::layout::pitch;
use fireq_tests::relative_error;

use super::device::{Device, UNTOUCHED, device};
use super::linear::NAN;
use super::oracle::{Case, elements_e4m3, parts, pitched};
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
        let Prefill { heads, kv_heads, head, .. } = self.sizes;
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

/// Values, channel by channel in rows of `pitch` positions of which those from `key` on are theirs, as the kernel reads them.
fn transpose(values: &[u8], key: usize, all: &mut [u8], pitch: usize) {
    let cols = all.len() / pitch;
    for (i, value) in values.iter().enumerate() {
        let (key, channel) = (key + i / cols, i % cols);
        all[channel * pitch + key / 16 * 16 + value_position(key % 16)] = *value;
    }
}

/// Sequences of a step: `[tokens, past]` of each, and the positions that each finds before its keys.
struct Batch {
    sequences: Vec<Sequence>,
    cases: Vec<Case>,
}

impl Batch {
    fn new(attention: &Attention, lengths: &[[usize; 2]], gap: usize) -> Self {
        let (mut query, mut key) = (0, 0);
        let mut batch = Batch { sequences: vec![], cases: vec![] };
        for [tokens, past] in lengths.iter().copied() {
            batch.sequences.push(Sequence { query, tokens, past, key });
            batch.cases.push(attention.case(tokens, past));
            (query, key) = (query + tokens, key + (tokens + past + gap).next_multiple_of(16));
        }
        batch
    }

    /// A quantized query's codes or scales, of all sequences.
    fn queries(&self, part: usize) -> Vec<u8> {
        self.cases.iter().flat_map(|case| parts(case.output(1)).remove(part)).collect()
    }

    fn tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.tokens).sum()
    }

    /// Positions that have something, the last of whole sixteen.
    fn positions(&self) -> usize {
        self.sequences.last().map_or(0, |last| last.key + last.tokens + last.past)
    }

    /// Keys, and values in rows of `stride`. Between sequences are large numbers: nothing may come of them.
    fn workspace(&self, sizes: &Prefill, stride: usize) -> [Vec<u8>; 2] {
        const LARGE: u8 = 0x7e;
        let key_bytes = sizes.kv_heads * pitch(sizes.head);
        let mut keys = vec![LARGE; self.positions() * key_bytes];
        let mut values = vec![LARGE; stride * sizes.kv_heads * sizes.head];
        for (case, sequence) in self.cases.iter().zip(&self.sequences) {
            let key = pitched(&elements_e4m3(case.cache("k.0")), sizes.head, NAN);
            keys[sequence.key * key_bytes..][..key.len()].copy_from_slice(&key);
            transpose(&elements_e4m3(case.cache("v.0")), sequence.key, &mut values, stride);
        }
        [keys, values]
    }

    /// The operands of a launch, and its rows. One sequence is launched as one.
    fn operands(
        &self,
        gpu: &mut Device,
        attention: &Attention,
        config: &PrefillConfig,
    ) -> (params::Prefill, usize) {
        let Attention { sizes, scale } = *attention;
        let (tokens, positions) = (self.tokens(), self.positions());
        let stride = positions.next_multiple_of(16) + 16;
        let [keys, values] = self.workspace(&sizes, stride);
        let queries = pitched(&self.queries(0), sizes.head, NAN);
        let [q, k, v] =
            [("q", queries), ("k", keys), ("v", values)].map(|(name, codes)| gpu.put(name, &codes));
        let params = params::Prefill {
            q: Device::map(q, &sizes.q(tokens)),
            k: Device::map(k, &sizes.k(positions, config)),
            v: Device::map(v, &sizes.v(positions, stride, config)),
            q_scales: gpu.put("q scales", &self.queries(1)),
            out: gpu.space(&format!("out {}", sizes.output), self.out_bytes(attention) + 64),
            factor: scale * std::f32::consts::LOG2_E,
            heads: sizes.heads as u32,
            repeats: (sizes.heads / sizes.kv_heads) as u32,
            ..params::Prefill::default()
        };
        if let [Sequence { past, .. }] = self.sequences[..] {
            return (params::Prefill { tokens: tokens as u32, past: past as u32, ..params }, tokens);
        }
        let tiles = sizes.tiles(&self.sequences);
        let bytes: Vec<u8> = tiles.iter().flat_map(Params::bytes).collect();
        (params::Prefill { tiles: gpu.put("tiles", &bytes), ..params }, tiles.len() * QUERIES)
    }

    fn out_bytes(&self, Attention { sizes, .. }: &Attention) -> usize {
        self.tokens() * sizes.heads * sizes.head * sizes.output.bits() / 8
    }

    /// The relative error of each sequence's outputs, as the interpreter has it alone; without a mask, as the contract has it.
    fn errors(&self, gpu: &Device, attention: &Attention, out: u64) -> Vec<f64> {
        let bytes = gpu.bytes(out, self.out_bytes(attention));
        let is_bf16 = attention.sizes.output == DType::BF16;
        let found: Vec<f32> = if is_bf16 {
            bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        } else {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let mut rest = &found[..];
        let error = |case: &Case| {
            let causal = attention.sizes.causal;
            let mut expected =
                if causal { case.output(0).to_f32() } else { contract::outputs(attention, case) };
            if is_bf16 {
                for x in &mut expected {
                    *x = half::bf16::from_f32(*x).to_f32();
                }
            }
            let (own, behind) = rest.split_at(expected.len());
            rest = behind;
            relative_error(&expected, own)
        };
        self.cases.iter().map(error).collect()
    }
}

/// Some sequences of `[tokens, past]`; stages and tiles in flight. Sums are promoted and not, where there is such a kernel, and
/// CTAs are alone and, where heads share keys, in pairs.
fn check(attention: Attention, lengths: &[[usize; 2]], [stages, in_flight]: [usize; 2]) {
    for (promotes, cluster) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        let config = PrefillConfig { stages, in_flight, promotes, cluster };
        if attention.sizes.unit(config, String::new()).is_ok() {
            check_one(attention, lengths, config);
        } else {
            assert!(promotes || in_flight == 1 || cluster == 2, "there is a kernel without promotion");
        }
    }
}

fn check_one(attention: Attention, lengths: &[[usize; 2]], config: PrefillConfig) {
    let Some(mut gpu) = device() else { return };
    // Tensor cores keep fewer bits of sums than f32.
    gpu.near = Near::Relatively(2e-3);
    let batch = Batch::new(&attention, lengths, 40);
    let (params, rows) = batch.operands(&mut gpu, &attention, &config);
    let unit = attention.sizes.unit(config, String::new()).unwrap();
    gpu.launch(&unit, rows, 0, &params);
    for (error, length) in batch.errors(&gpu, &attention, params.out).into_iter().zip(lengths) {
        let what = format!("{:?}, scores times {}, {length:?}", attention.sizes, attention.scale);
        eprintln!("{what}: {error:.1e}");
        // A probability in the middle of two codes may go either way: one in a thousand does, by a sixteenth.
        assert!(error < 5e-4, "{what}: {error:.1e}");
    }
    let behind = params.out + batch.out_bytes(&attention) as u64;
    assert_eq!(gpu.bytes(behind, 64), [UNTOUCHED; 64], "behind the output");
}

/// Heads, kv heads, channels of a head, with the usual scale of scores.
fn heads(heads: usize, kv_heads: usize, head: usize) -> Attention {
    let sizes = Prefill { heads, kv_heads, head, output: DType::F32, causal: true };
    Attention { sizes, scale: (head as f32).sqrt().recip() }
}

fn to_bf16(mut attention: Attention) -> Attention {
    attention.sizes.output = DType::BF16;
    attention
}

#[test]
fn queries_fill_tiles_and_leave_tails() {
    check(heads(2, 2, 128), &[[300, 77]], [2, 3]);
    check(heads(1, 1, 64), &[[128, 0]], [3, 3]);
    check(heads(1, 1, 128), &[[577, 123]], [2, 3]);
    check(heads(1, 1, 64), &[[257, 0]], [2, 2]);
}

#[test]
fn grouped_heads_share_keys_and_values() {
    check(heads(4, 1, 64), &[[33, 200]], [2, 3]);
    check(heads(8, 2, 128), &[[37, 92]], [2, 2]);
    check(heads(8, 1, 128), &[[5, 123]], [2, 3]);
}

#[test]
fn one_query_sees_one_key_or_many() {
    check(heads(2, 2, 128), &[[1, 0]], [2, 3]);
    check(heads(2, 2, 64), &[[1, 699]], [2, 2]);
    check(heads(2, 1, 128), &[[3, 128]], [2, 3]);
}

#[test]
fn two_tiles_in_flight_give_the_same() {
    check(heads(1, 1, 128), &[[130, 140]], [2, 2]);
}

/// Products of queries and keys are about a hundred.
#[test]
fn scores_of_ten_thousand_stay_finite() {
    check(Attention { scale: 1000.0, ..heads(1, 1, 128) }, &[[130, 0]], [2, 3]);
    check(Attention { scale: 1000.0, ..heads(4, 1, 64) }, &[[21, 190]], [2, 2]);
}

/// Chunks of prompts, whole ones, and single tokens in one launch.
#[test]
fn sequences_of_a_batch_are_what_they_are_alone() {
    check(heads(4, 2, 64), &[[1, 0], [200, 0], [17, 130], [1, 300]], [3, 3]);
    check(heads(2, 1, 128), &[[130, 127], [64, 0], [3, 255]], [2, 2]);
}

#[test]
fn outputs_are_bf16_where_they_are_wanted() {
    check(to_bf16(heads(2, 1, 128)), &[[70, 60]], [2, 3]);
    check(to_bf16(heads(2, 2, 80)), &[[30, 3], [9, 0]], [2, 2]);
}

/// Heads that are no span of a swizzle are filled up, and those of more than one are multiplied in two panels.
#[test]
fn heads_of_other_sizes_are_filled_up() {
    check(heads(2, 1, 80), &[[140, 33]], [2, 3]);
    check(heads(3, 3, 96), &[[40, 130]], [3, 2]);
    check(heads(3, 1, 48), &[[50, 0], [7, 9]], [2, 3]);
    check(heads(2, 1, 256), &[[140, 21]], [2, 2]);
    check(to_bf16(heads(2, 2, 192)), &[[20, 140]], [2, 2]);
}

/// Heads whose codes fill no 16 bytes: numbers behind them, which are none, are not read.
#[test]
fn heads_of_a_few_fours_are_filled_up() {
    check(heads(3, 1, 36), &[[50, 0], [7, 9]], [2, 3]);
    check(heads(2, 2, 100), &[[20, 130]], [2, 3]);
    check(heads(1, 1, 4), &[[9, 0]], [2, 3]);
    check(heads(2, 1, 132), &[[20, 3]], [2, 2]);
    check(to_bf16(heads(3, 1, 72)), &[[17, 130]], [2, 3]);
}

/// Panels of values that are promoted one after the other, of tiles of which only one is in flight.
#[test]
fn heads_of_two_panels_are_promoted_panel_by_panel() {
    check(heads(2, 1, 256), &[[140, 300]], [2, 1]);
    check(to_bf16(heads(1, 1, 192)), &[[20, 140], [129, 0]], [2, 1]);
    check(heads(1, 1, 128), &[[70, 190]], [3, 1]);
}
