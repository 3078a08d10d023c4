//! Cases to time: every kernel at the sizes of a Llama-3-8B, without expected results, and what `PyTorch` does beside it.

mod attention;
mod ends;
pub mod prefill;
mod products;

use fireq_codegen::cuda::cache::Cache;
use fireq_gpu::{Buffer, Case, Cost, Dtype, Init, Param};
use fireq_ir::{DType, Fit};
use fireq_kernels::cuda::params::{self, Params, Run};
use fireq_kernels::cuda::{
    Elementwise, Qkv, Sequence, Unit, elementwise, gather, norm_quantize, quantize, rms_norm, rope_table,
    runs, swiglu_quantize,
};
use fireq_kernels::pages::Pages;
use serde_json::{Value, json};

use super::device::device;
use super::record::{folder, write};

const HIDDEN: usize = 4096;
const FFN: usize = 14336;
const HEADS: Qkv =
    Qkv { q_heads: 32, kv_heads: 8, head: 128, k_fit: Fit::Clipped, v_fit: Fit::Clipped, page: 64 };
const VOCABULARY: usize = 128_256;
/// Tokens of a step: decoding one and many sequences, and prefill.
const TOKENS: [usize; 4] = [1, 64, 4096, 16384];
/// Rows whose logits are wanted: one of each sequence.
const SEQUENCES: [usize; 2] = [1, 64];

/// Memory of a case while its parameters are made. What it holds is read or written once unless said otherwise.
struct Memory {
    buffers: Vec<Buffer>,
    bytes: u64,
    /// TMA descriptors, and where they stand in the parameters.
    maps: Vec<(usize, Param)>,
}

/// Stands for address 0 of buffer 0; buffers are 2⁴⁰ bytes apart. No other parameter has these bits.
const FIRST: u64 = 0xf1de << 48;
const APART: u64 = 1 << 40;

impl Memory {
    fn put(&mut self, name: &str, len: usize, init: Init) -> u64 {
        self.bytes += len as u64;
        self.buffers.push(Buffer { name: name.into(), len, init, expected: None });
        FIRST + APART * (self.buffers.len() as u64 - 1)
    }

    fn random(&mut self, name: &str, dtype: Dtype, len: usize) -> u64 {
        let seed = self.buffers.len() as u64;
        self.put(name, len, Init::Random { seed, dtype })
    }

    fn space(&mut self, name: &str, len: usize) -> u64 {
        self.put(name, len, Init::Poison)
    }

    /// `count` numbers below `end`, far from their neighbours.
    fn indices(&mut self, name: &str, count: usize, end: usize) -> u64 {
        let index = |i: usize| ((i * 40_503 + 17) % end) as i32;
        self.put(name, 4 * count, Init::Data((0..count).flat_map(|i| index(i).to_le_bytes()).collect()))
    }
}

/// What is known of a launch beside its memory.
#[derive(Default)]
struct Work {
    rows: usize,
    /// Positions before them.
    past: usize,
    /// What the unit's name does not say.
    sizes: String,
    /// Multiplications and additions.
    flops: u64,
    /// Bytes of memory that is there and not touched.
    untouched: usize,
}

impl Work {
    fn of(rows: usize) -> Self {
        Work { rows, ..Work::default() }
    }
}

/// A case, its unit, and what `PyTorch` does beside it: a function of `bench.py` and its sizes.
type Timed = (Case, Unit, Value);

fn timed<P: Params>(
    unit: Unit,
    work: &Work,
    params: impl FnOnce(&mut Memory) -> P,
    torch: impl FnOnce(u64) -> (&'static str, Value),
) -> Timed {
    let mut memory = Memory { buffers: vec![], bytes: 0, maps: vec![] };
    let mut params = params(&mut memory).bytes();
    let mut fills = std::mem::take(&mut memory.maps);
    for (n, word) in params.chunks_exact_mut(8).enumerate() {
        let value = u64::from_le_bytes(word.try_into().unwrap());
        if let Some(at) = value.checked_sub(FIRST).filter(|at| *at < 1 << 48) {
            fills.push((8 * n, Param::Address { buffer: (at / APART) as usize, byte: at % APART }));
            word.fill(0);
        }
    }
    let cost = Cost { bytes: memory.bytes - work.untouched as u64, flops: work.flops };
    let name = format!("{}{} of {} rows", unit.name, work.sizes, work.rows);
    let (function, sizes) = torch(cost.bytes);
    let case = Case {
        name: name.clone(),
        unit: unit.name.clone(),
        kernel: unit.name.clone(),
        shape: unit.launch(work.rows, work.past),
        params,
        fills,
        buffers: memory.buffers,
        cost: Some(cost),
    };
    (case, unit, json!({ "name": name, "torch": function, "sizes": sizes }))
}

/// Kernels for which `PyTorch` has no counterpart are held against a copy of as many bytes.
fn copy(bytes: u64) -> (&'static str, Value) {
    ("copy", json!({ "bytes": bytes }))
}

fn cases() -> Vec<Timed> {
    let steps = TOKENS.into_iter().flat_map(|tokens| [norms(tokens), rows(tokens), heads(tokens)].concat());
    let steps = steps.chain(products::TOKENS.into_iter().flat_map(products::at));
    let steps = steps.chain(SEQUENCES.into_iter().flat_map(ends::at));
    steps.chain(prefill::all()).chain(attention::all()).collect()
}

fn norms(tokens: usize) -> Vec<Timed> {
    let x = 4 * tokens * HIDDEN;
    let rms = |m: &mut Memory| params::RmsNorm {
        x: m.random("x", Dtype::F32, x),
        weight: m.random("weight", Dtype::Bf16, 2 * HIDDEN),
        out: m.space("out", x),
        stride: HIDDEN as u32,
        runs: 1,
        eps: 1e-5,
    };
    let quantized = |m: &mut Memory| params::NormQuantize {
        x: m.random("x", Dtype::F32, x),
        weight: m.random("weight", Dtype::Bf16, 2 * HIDDEN),
        codes: m.space("codes", tokens * HIDDEN),
        scales: m.space("scales", 4 * tokens),
        eps: 1e-5,
    };
    let sizes = json!({ "tokens": tokens, "cols": HIDDEN });
    vec![
        timed(rms_norm(HIDDEN, DType::BF16).unwrap(), &Work::of(tokens), rms, copy),
        timed(norm_quantize(HIDDEN, DType::BF16).unwrap(), &Work::of(tokens), quantized, |_| {
            ("norm_quantize", sizes)
        }),
    ]
}

fn rows(tokens: usize) -> Vec<Timed> {
    let x = 4 * tokens * HIDDEN;
    let table = 2 * VOCABULARY * HIDDEN;
    let gathered = |m: &mut Memory| params::Gather {
        table: m.random("table", Dtype::Bf16, table),
        index: m.indices("index", tokens, VOCABULARY),
        out: m.space("out", x),
        rows: VOCABULARY as u32,
    };
    let added = |m: &mut Memory| params::Elementwise {
        a: m.random("a", Dtype::F32, x),
        b: m.random("b", Dtype::F32, x),
        out: m.space("out", x),
        elements: (tokens * HIDDEN) as u64,
    };
    let quantized = |cols: usize| {
        move |m: &mut Memory| params::Quantize {
            x: m.random("x", Dtype::F32, 4 * tokens * cols),
            codes: m.space("codes", tokens * cols),
            scales: m.space("scales", 4 * tokens),
        }
    };
    let swiglu = |m: &mut Memory| params::SwigluQuantize {
        x: m.random("x", Dtype::F32, 8 * tokens * FFN),
        codes: m.space("codes", tokens * FFN),
        scales: m.space("scales", 4 * tokens),
    };
    let sizes = |cols: usize| json!({ "tokens": tokens, "cols": cols });
    let lookup = json!({ "tokens": tokens, "cols": HIDDEN, "rows": VOCABULARY });
    let work = Work::of(tokens);
    let few = Work { untouched: table - 2 * tokens * HIDDEN, ..Work::of(tokens) };
    vec![
        timed(gather(HIDDEN, DType::BF16).unwrap(), &few, gathered, |_| ("gather", lookup)),
        timed(elementwise(Elementwise::Add, HIDDEN, DType::F32).unwrap(), &work, added, |_| {
            ("add", sizes(HIDDEN))
        }),
        timed(quantize(HIDDEN).unwrap(), &work, quantized(HIDDEN), copy),
        timed(quantize(FFN).unwrap(), &work, quantized(FFN), copy),
        timed(swiglu_quantize(FFN).unwrap(), &work, swiglu, |_| ("swiglu_quantize", sizes(FFN))),
    ]
}

fn heads(tokens: usize) -> Vec<Timed> {
    let Qkv { q_heads, kv_heads, head, .. } = HEADS;
    let (q, kv, stride) = (q_heads * head, kv_heads * head, (q_heads + 2 * kv_heads) * head);
    let room = tokens.next_multiple_of(16);
    let spans = [Sequence { tokens, ..Sequence::default() }];
    let layout = Pages { kv_heads, head, keys: HEADS.page };
    let table = |m: &mut Memory| params::RopeTable {
        positions: m.indices("positions", tokens, 8192),
        inv_freq: m.random("inv_freq", Dtype::F32, 2 * head),
        table: m.space("table", 4 * tokens * head),
        tokens: tokens as u32,
    };
    let qkv = |m: &mut Memory| {
        let merged = m.random("qkv", Dtype::F32, 4 * tokens * stride);
        params::Qkv {
            q: merged,
            k: merged + 4 * q as u64,
            v: merged + 4 * (q + kv) as u64,
            table: m.random("table", Dtype::F32, 4 * tokens * head),
            q_codes: m.space("q codes", tokens * q),
            q_scales: m.space("q scales", 4 * tokens * q_heads),
            runs: m.put(
                "runs",
                Run::SIZE * runs(&spans).len(),
                Init::Data(runs(&spans).iter().flat_map(Params::bytes).collect()),
            ),
            tables: m.put(
                "tables",
                4 * layout.count(tokens),
                Init::Data((0..layout.count(tokens) as u32).flat_map(u32::to_le_bytes).collect()),
            ),
            pages: m.space("pages", layout.count(tokens) * layout.bytes()),
            k_workspace: m.space("k workspace", tokens * kv),
            v_workspace: m.space("v workspace", room * kv),
            workspace_stride: room as u32,
            q_stride: stride as u32,
            k_stride: stride as u32,
            v_stride: stride as u32,
            page_stride: layout.bytes() as u32,
            table_stride: layout.count(tokens) as u32,
            ..params::Qkv::default()
        }
    };
    let unused = layout.count(tokens) * layout.bytes() - tokens * 2 * (kv / 2 + kv_heads);
    let padded = Work { untouched: (room - tokens) * kv + unused, ..Work::of(runs(&spans).len()) };
    vec![
        timed(rope_table(head).unwrap(), &Work::of(tokens), table, copy),
        timed(HEADS.unit().unwrap(), &padded, qkv, copy),
    ]
}

#[test]
fn timed_cases_and_their_counterparts_are_written() {
    if device().is_none() {
        return;
    }
    let aside = tempfile::tempdir().unwrap();
    let folder = folder().unwrap_or_else(|| aside.path().into());
    let script = include_str!("../../gpu/bench.py");
    let mut counterparts = vec![];
    for (case, unit, torch) in cases() {
        let compiled = Cache::of_user().compile(&unit.name, &unit.source().unwrap()).unwrap();
        write(&folder, &case, &compiled);
        let path = folder.join("cases").join(format!("{}.case", case.name.replace(' ', "-")));
        assert_eq!(Case::load(&path).unwrap(), case);
        let filled: Vec<usize> = case
            .fills
            .iter()
            .map(|(_, fill)| match fill {
                Param::Address { buffer, byte } if *byte < case.buffers[*buffer].len as u64 => *buffer,
                Param::TensorMap { buffer, .. } => *buffer,
                other @ Param::Address { .. } => panic!("{}: {other:?} is outside", case.name),
            })
            .collect();
        assert!((0..case.buffers.len()).all(|n| filled.contains(&n)), "{}: a buffer is not used", case.name);
        assert!(script.contains(&format!("\ndef {}(", torch["torch"].as_str().unwrap())), "{torch}");
        counterparts.push(torch);
    }
    std::fs::write(folder.join("bench.json"), serde_json::to_string_pretty(&counterparts).unwrap()).unwrap();
}
