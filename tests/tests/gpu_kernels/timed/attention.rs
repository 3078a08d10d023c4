//! Decode attention over pages, beside `PyTorch`'s over bfloat16, and pages gathered for prefill.

use fireq_gpu::{Dtype, Init};
use fireq_kernels::cuda::splits::Split;
use fireq_kernels::cuda::{DecodeAttention, gather_pages, params};
use fireq_kernels::pages::TILE;
use serde_json::json;

use super::{HEADS, Memory, Timed, Work, copy, timed};

const OF: DecodeAttention =
    DecodeAttention { heads: HEADS.q_heads, kv_heads: HEADS.kv_heads, head: HEADS.head, page: HEADS.page };
/// Sequences, and the keys of each.
const SEQUENCES: [usize; 3] = [1, 16, 64];
const KEYS: [usize; 3] = [1024, 8192, 32768];

pub fn all() -> Vec<Timed> {
    let sizes = SEQUENCES.into_iter().flat_map(|sequences| KEYS.map(|keys| (sequences, keys)));
    let attention = sizes.flat_map(|(sequences, keys)| at(sequences, keys));
    attention.chain([gathered(8192)]).collect()
}

fn numbers(m: &mut Memory, name: &str, numbers: impl Iterator<Item = u32>) -> u64 {
    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    m.put(name, bytes.len(), Init::Data(bytes))
}

/// A token of each sequence, and where keys are split what makes one of their parts.
fn at(sequences: usize, keys: usize) -> Vec<Timed> {
    let (units, each) = (sequences * OF.heads, OF.heads * OF.head);
    let split @ Split { tiles, parts } = OF.split(&vec![keys; sequences]);
    let sums = if parts > 1 { parts } else { 0 };
    let (pages, layout) = (OF.pages().count(keys), OF.pages());
    let operands = |m: &mut Memory| params::DecodeAttention {
        q: m.random("q", Dtype::E4m3, sequences * each),
        q_scales: m.random("q scales", Dtype::F32, 4 * units),
        // Codes of any bits, scales that are numbers.
        pages: m.random("pages", Dtype::E4m3, sequences * pages * layout.bytes()),
        tables: numbers(m, "tables", (0..(sequences * pages) as u32).rev()),
        positions: numbers(m, "positions", (0..sequences).map(|_| keys as u32 - 1)),
        out: m.space("out", 4 * sequences * each),
        sums: if sums > 0 { m.space("sums", 4 * sums * sequences * each) } else { 0 },
        ends: if sums > 0 { m.space("ends", 8 * sums * units) } else { 0 },
        factor: 0.1,
        page_stride: layout.bytes() as u32,
        table_stride: pages as u32,
        split_tiles: tiles as u32,
        repeats: (OF.heads / OF.kv_heads) as u32,
        ..params::DecodeAttention::default()
    };
    let sizes = format!(" {keys} keys in {parts} of {tiles} tiles");
    let flops = 4 * (sequences * each * keys) as u64;
    let not_written = if sums > 0 { 4 * sequences * each } else { 0 };
    let work = Work { sizes, flops, past: keys - 1, untouched: not_written, ..Work::of(sequences) };
    let torch = json!({
        "sequences": sequences, "keys": keys, "heads": OF.heads, "kv_heads": OF.kv_heads, "head": OF.head
    });
    let attention = timed(OF.unit().unwrap(), &work, operands, |_| ("decode", torch));
    std::iter::once(attention).chain((sums > 0).then(|| combined(sequences, keys, split))).collect()
}

fn combined(sequences: usize, keys: usize, Split { tiles, parts }: Split) -> Timed {
    let (units, each) = (sequences * OF.heads, OF.heads * OF.head);
    let operands = |m: &mut Memory| params::Combine {
        sums: m.random("sums", Dtype::F32, 4 * parts * sequences * each),
        ends: m.random("ends", Dtype::F32, 8 * parts * units),
        positions: numbers(m, "positions", (0..sequences).map(|_| keys as u32 - 1)),
        out: m.space("out", 4 * sequences * each),
        split_keys: (tiles * TILE) as u32,
        splits: parts as u32,
        heads: OF.heads as u32,
    };
    let work = Work { sizes: format!(" {parts} parts of {keys} keys"), ..Work::of(sequences) };
    timed(OF.combine().unwrap(), &work, operands, copy)
}

/// The keys and values of so many positions, for a chunk of a prefill.
fn gathered(keys: usize) -> Timed {
    let (layout, kv) = (OF.pages(), OF.kv_heads * OF.head);
    let operands = |m: &mut Memory| params::GatherPages {
        pages: m.random("pages", Dtype::E4m3, layout.count(keys) * layout.bytes()),
        table: numbers(m, "table", (0..layout.count(keys) as u32).rev()),
        k_workspace: m.space("k workspace", keys * kv),
        v_workspace: m.space("v workspace", keys * kv),
        page_stride: layout.bytes() as u32,
        workspace_stride: keys as u32,
        keys: keys as u32,
    };
    let work = Work { sizes: format!(" {keys} keys"), past: keys, ..Work::of(1) };
    timed(gather_pages(layout).unwrap(), &work, operands, copy)
}
