//! Causal attention of whole prompts, beside `PyTorch`'s in bf16.

use fireq_gpu::{Dtype, Init, Param};
use fireq_ir::DType;
use fireq_kernels::cuda::cost_prefill::candidates;
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::{Prefill, PrefillConfig, QUERIES, Sequence, prefill_tiles};
use serde_json::json;

use super::{HEADS, Memory, Timed, Work, timed};

/// Tokens of a sequence; as many sequences as have [`ALL`] together, one at least.
pub const LENGTHS: [usize; 7] = [512, 1024, 2048, 4096, 8192, 16384, 32768];
const ALL: usize = 16384;

/// Both sizes of heads, with two and with three tiles in flight, sums promoted and not.
pub fn at(length: usize) -> Vec<Timed> {
    let heads = |head| Prefill { heads: HEADS.q_heads, kv_heads: HEADS.kv_heads, head, output: DType::BF16 };
    let both = [64, 128].into_iter().map(heads);
    let each = both.flat_map(|attention| [false, true].map(|promotes| (attention, promotes)));
    each.flat_map(|(attention, promotes)| {
        candidates(&attention, promotes).map(move |config| case(&attention, config, length))
    })
    .collect()
}

fn case(attention: &Prefill, config: PrefillConfig, length: usize) -> Timed {
    let Prefill { heads, kv_heads, head, .. } = *attention;
    let count = (ALL / length).max(1);
    let sequence = |n: usize| Sequence { query: n * length, tokens: length, past: 0, key: n * length };
    let tiles = prefill_tiles(&(0..count).map(sequence).collect::<Vec<_>>());
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
    // Two products of each query with each key that it sees.
    let flops = 4 * (count * heads * head * length * (length + 1) / 2) as u64;
    let work = Work { sizes: format!(" {count}x{length}"), flops, ..Work::of(tiles.len() * QUERIES) };
    let sizes =
        json!({ "count": count, "length": length, "heads": heads, "kv_heads": kv_heads, "head": head });
    timed(unit, &work, operands, |_| ("prefill", sizes))
}
