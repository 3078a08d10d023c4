//! Attention of whole prompts, causal and of all keys, beside `PyTorch`'s in bf16.

use fireq_gpu::{Dtype, Init, POISON, Param};
use fireq_ir::DType;
use fireq_kernels::cuda::cost_prefill::{SHORT_ROW, candidates};
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::{Prefill, PrefillConfig, QUERIES, Sequence};
use serde_json::json;

use super::super::device::device;
use super::{HEADS, Memory, Timed, Work, timed};

/// Tokens of a sequence, and of all sequences of a launch.
const LENGTHS: [usize; 7] = [512, 1024, 2048, 4096, 8192, 16384, 32768];
const ALL: [usize; 2] = [16384, 32768];
/// Those of [`ALL`] and of [`LENGTHS`] at which pairs of CTAs are timed beside what they are alone: 8, 64 and 256 tiles of a head's
/// queries ask the L2 cache for the same keys. They decide on the bound of the cost model above which CTAs are paired, an estimate.
const PAIRED: [[usize; 2]; 3] = [[32768, 1024], [32768, 8192], [32768, 32768]];

/// Every attention with every configuration, at the lengths that it is timed at.
pub fn all() -> Vec<Timed> {
    let shapes = ALL.into_iter().flat_map(|all| LENGTHS.map(|length| [all, length]));
    let shapes = shapes.filter(|[all, length]| length <= all);
    shapes.flat_map(|shape| at(shape).into_iter().map(move |(of, config)| case(&of, config, shape))).collect()
}

/// Both sizes of heads, causal and not.
fn attentions() -> impl Iterator<Item = Prefill> {
    let of = |head, causal| {
        let (heads, kv_heads) = (HEADS.q_heads, HEADS.kv_heads);
        Prefill { heads, kv_heads, head, output: DType::BF16, causal }
    };
    [64, 128].into_iter().flat_map(move |head| [true, false].map(|causal| of(head, causal)))
}

/// With three and with two tiles in flight; what long rows run, whose sums are promoted; and some in pairs.
fn at([all, length]: [usize; 2]) -> Vec<(Prefill, PrefillConfig)> {
    let configurations = |of: &Prefill| {
        let alone = |promotes| candidates(of, promotes).filter(|config| config.cluster == 1);
        let both = alone(false).collect::<Vec<_>>();
        let promoted = alone(true).next().filter(|_| length > SHORT_ROW);
        let chosen = promoted.or(both.first().copied()).filter(|_| PAIRED.contains(&[all, length]));
        let pair = chosen.map(|config| PrefillConfig { cluster: 2, ..config });
        both.into_iter().chain(promoted).chain(pair).collect::<Vec<_>>()
    };
    attentions().flat_map(|of| configurations(&of).into_iter().map(move |config| (of, config))).collect()
}

/// All that is timed, each once.
pub fn configurations() -> Vec<(Prefill, PrefillConfig)> {
    let mut found = vec![];
    for of in ALL.into_iter().flat_map(|all| LENGTHS.map(|length| [all, length])).flat_map(at) {
        if !found.contains(&of) {
            found.push(of);
        }
    }
    found
}

fn case(attention: &Prefill, config: PrefillConfig, [all, length]: [usize; 2]) -> Timed {
    let Prefill { heads, kv_heads, head, causal, .. } = *attention;
    let count = all / length;
    let sequence = |n: usize| Sequence { query: n * length, tokens: length, past: 0, key: n * length };
    let tiles = attention.tiles(&(0..count).map(sequence).collect::<Vec<_>>());
    let tokens = count * length;
    let operands = |m: &mut Memory| {
        m.random("q", Dtype::E4m3, tokens * heads * head);
        m.random("k", Dtype::E4m3, tokens * kv_heads * head);
        m.random("v", Dtype::E4m3, tokens * kv_heads * head);
        let maps = [
            (std::mem::offset_of!(params::Prefill, q), attention.q(tokens)),
            (std::mem::offset_of!(params::Prefill, k), attention.k(tokens, &config)),
            (std::mem::offset_of!(params::Prefill, v), attention.v(tokens, tokens, &config)),
        ];
        let filled = maps.into_iter().enumerate();
        m.maps.extend(filled.map(|(buffer, (at, shape))| (at, Param::TensorMap { buffer, shape })));
        let bytes: Vec<u8> = tiles.iter().flat_map(Params::bytes).collect();
        params::Prefill {
            tiles: if count > 1 { m.put("tiles", bytes.len(), Init::Data(bytes)) } else { 0 },
            // Of either sign: as much is done for the queries below zero.
            q_scales: m.random("q scales", Dtype::F32, 4 * tokens * heads),
            out: m.space("out", 2 * tokens * heads * head),
            factor: (head as f32).sqrt().recip() * std::f32::consts::LOG2_E,
            tokens: if count > 1 { 0 } else { tokens as u32 },
            past: 0,
            heads: heads as u32,
            repeats: (heads / kv_heads) as u32,
            ..params::Prefill::default()
        }
    };
    let unit = attention.unit(config, "timed".into()).unwrap();
    // Two products of each query with each key; half of them where it is causal, as FlashAttention's authors count.
    let products = 2 * (2 * count * heads * head * length * length) as u64;
    let flops = if causal { products / 2 } else { products };
    let work = Work { sizes: format!(" {count}x{length}"), flops, ..Work::of(tiles.len() * QUERIES) };
    let sizes = json!({
        "count": count, "length": length, "heads": heads, "kv_heads": kv_heads, "head": head, "causal": causal
    });
    timed(unit, &work, operands, |_| ("prefill", sizes))
}

/// What is timed is too large for the simulator. The same of few tokens is not: tables, descriptors and memory are right.
#[test]
fn cases_of_few_tokens_run() {
    for (of, config) in configurations() {
        let Some(mut gpu) = device() else { return };
        // One of each kind is enough: with a table of tiles or of one sequence, causal or not, in pairs or alone.
        if of.head == 64 && config.in_flight == 3 {
            let shape = [48 * (1 + usize::from(of.causal)), 48];
            let (case, unit, _) = case(&of, config, shape);
            let after = gpu.run_case(&case, &unit);
            let poisoned = after.last().unwrap().as_chunks().0.iter().filter(|b| **b == [POISON; 2]).count();
            assert_eq!(poisoned, 0, "{}: outputs that nobody wrote", case.name);
        }
    }
}
