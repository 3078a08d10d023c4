//! What FP8 probabilities and INT4 keys and values cost outputs of attention, on the demo model and on its twin with outliers,
//! with and without scales before rope (N) and behind it (S). `cargo xtask attention-accuracy` shows the table.
//!
//! Queries, keys and values of every layer are those of the unquantized model, so that errors of one layer are not another's;
//! each layer's attention is then computed in f32, and with some of its operands rounded as kernels round them.

#![cfg(feature = "llvm")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fireq::calibrate::{CalibrationOptions, calibration, sequences};
use fireq::compile::facts;
use fireq::import::import;
use fireq::tokens::Tokens;
use fireq_ir::interp::{Tensor, empty_caches, interpret, interpret_observed};
use fireq_ir::text::parse_and_verify;
use fireq_ir::{Graph, Op, ValueId};
use fireq_passes::pipeline_with;
use fireq_tests::relative_error;
use tempfile::TempDir;
use xtask::outliers::{Factors, Kind, Request, write};

/// Tokens of a sequence, and sequences.
const SEQUENCE: usize = 128;
const SEQUENCES: usize = 1;

/// Scales of keys by what they are called, and the passes that find them.
const SMOOTHINGS: [(&str, &str); 4] = [
    ("neither", "none"),
    ("N", "blocks(smooth-rope-pre,fold-scales)"),
    ("S", "blocks(smooth-rope-post,fold-scales)"),
    ("N and S", "blocks(smooth-rope-pre,smooth-rope-post,fold-scales)"),
];

/// What is rounded: probabilities, keys and values, and queries.
#[derive(Clone, Copy)]
struct Rounded {
    p: bool,
    kv: bool,
    q: bool,
}

const COLUMNS: [(&str, Rounded); 4] = [
    ("P in E4M3", Rounded { p: true, kv: false, q: false }),
    ("K and V in INT4", Rounded { p: false, kv: true, q: false }),
    ("both", Rounded { p: true, kv: true, q: false }),
    ("both, Q in E4M3", Rounded { p: true, kv: true, q: true }),
];

/// Sizes of an attention, and its operands on a sequence.
struct Layer {
    heads: usize,
    kv_heads: usize,
    scale: f32,
    operands: BTreeMap<String, Tensor>,
}

impl Layer {
    fn out(&self, Rounded { p, kv, q }: Rounded) -> Vec<f32> {
        let Layer { heads, kv_heads, scale, operands } = self;
        let [q_cols, k_cols, v_cols] = ["q", "k", "v"].map(|name| operands[name].cols());
        let p = if p { "e4m3" } else { "f32" };
        let (query, q_lines) = if q {
            let format = format!("e4m3<g{}:f32>", q_cols / heads);
            ("%9", format!("%9 = quantize %0 {{to={format}}} : {format}[T,{q_cols}]\n"))
        } else {
            ("%0", String::new())
        };
        let (append, k_cache, v_cache) = if kv {
            let cache = |cols: usize| format!("i4<g{}:e4m3>", cols / kv_heads);
            ("quantize_append", cache(k_cols), cache(v_cols))
        } else {
            ("kv_append", "f32".into(), "f32".into())
        };
        let fit = if kv { " {fit=clipped}" } else { "" };
        let text = format!(
            "graph \"attention\" {{
               %0 = input {{name=\"q\"}} : f32[T,{q_cols}]
               %1 = input {{name=\"k\"}} : f32[T,{k_cols}]
               %2 = input {{name=\"v\"}} : f32[T,{v_cols}]
               {q_lines}%3 = cache {{name=\"k.0\"}} : {k_cache}[P,{k_cols}]
               %4 = cache {{name=\"v.0\"}} : {v_cache}[P,{v_cols}]
               %5 = {append} %3, %1{fit} : {k_cache}[P+T,{k_cols}]
               %6 = {append} %4, %2{fit} : {v_cache}[P+T,{v_cols}]
               %7 = attention {query}, %5, %6 {{heads={heads}, kv_heads={kv_heads}, scale={scale}, p={p}}} : f32[T,{q_cols}]
               return %7
             }}
"
        );
        let graph = parse_and_verify(&text).unwrap();
        interpret(&graph, operands, &empty_caches(&graph)).unwrap().outputs[0].to_f32()
    }
}

/// Every attention of a model, on some text.
fn layers(graph: &Graph, text: &BTreeMap<String, Tensor>) -> Vec<Layer> {
    let mut seen: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let attentions: Vec<(ValueId, Op)> = graph
        .schedule()
        .into_iter()
        .filter(|value| matches!(graph.op(*value), Op::Attention { .. }))
        .map(|value| (value, graph.op(value).clone()))
        .collect();
    let wanted: Vec<ValueId> = attentions.iter().flat_map(|(value, _)| graph.operands(*value)).collect();
    let mut keep = |value: ValueId, tensor: &Tensor| {
        if wanted.contains(&value) {
            seen.insert(value, tensor.clone());
        }
    };
    interpret_observed(graph, text, &empty_caches(graph), &mut keep).unwrap();
    let layer = |(value, op): (ValueId, Op)| {
        let Op::Attention { heads, kv_heads, scale, .. } = op else { unreachable!() };
        let named = ["q", "k", "v"].into_iter().zip(graph.operands(value));
        let operand = |(name, value): (&str, ValueId)| {
            let tensor = &seen[&value];
            (name.to_string(), Tensor::from_rows(tensor.to_f32(), tensor.cols()))
        };
        Layer { heads, kv_heads, scale, operands: named.map(operand).collect() }
    };
    attentions.into_iter().map(layer).collect()
}

/// Relative errors of attention outputs against f32, in the order of [`COLUMNS`]: means over layers and sequences.
fn errors(dir: &Path, passes: &str) -> [f64; 4] {
    let mut model = import(dir).unwrap();
    let options = CalibrationOptions { text: None, tokens: 2048, sequence: SEQUENCE, threads: 2 };
    let calibration = Arc::new(calibration(dir, &facts(&model), options));
    pipeline_with(passes, &calibration).unwrap().run(&mut model.graph).unwrap();
    let stories = std::fs::read_to_string(models().join("stories.txt")).unwrap();
    let parts = Tokens::load(dir, None).unwrap().encode_parts(&stories).unwrap();
    let text = sequences(parts.start, &parts.ids, SEQUENCES, SEQUENCE);
    let all: Vec<Layer> = text.iter().flat_map(|text| layers(&model.graph, text)).collect();
    let exact = Rounded { p: false, kv: false, q: false };
    let of = |rounded| {
        let error = |layer: &Layer| relative_error(&layer.out(exact), &layer.out(rounded));
        all.iter().map(error).sum::<f64>() / all.len() as f64
    };
    COLUMNS.map(|(_, rounded)| of(rounded))
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// The model's twin with keys that have outliers.
fn twin(folder: &Path, kind: Kind) -> PathBuf {
    let dir = folder.join(format!("{kind:?}"));
    let request = Request { kind, seed: 3, factors: Factors::default() };
    assert_eq!(write(&models().join("tinystories-3m"), &dir, &request), Ok(None));
    dir
}

#[test]
fn probabilities_cost_little_and_scales_of_keys_save_what_outliers_cost() {
    let temp = TempDir::new().unwrap();
    let models = [
        ("demo", models().join("tinystories-3m")),
        ("twin: rope pairs of keys", twin(temp.path(), Kind::Keys)),
        ("twin: single channels of keys", twin(temp.path(), Kind::KeyBias)),
    ];
    println!("| model | scales of keys | {} |", COLUMNS.map(|(name, _)| name).join(" | "));
    println!("|---|---|---|---|---|---|");
    let table = models.map(|(name, dir)| {
        SMOOTHINGS.map(|(scales, passes)| {
            let found = errors(&dir, passes);
            println!("| {name} | {scales} | {} |", found.map(|e| format!("{:.1} %", 100.0 * e)).join(" | "));
            found
        })
    });
    for [p, kv, both, all] in table.into_iter().flatten() {
        assert!(p < 0.015, "probabilities: {p}");
        assert!(both < kv + p && both > kv - p, "errors of {kv} and {p} come to {both}");
        assert!((all - both).abs() < 0.01, "queries: {all} beside {both}");
    }
    let [demo, pairs, single] = table.map(|rows| rows.map(|[_, kv, ..]| kv));
    // In the order of `SMOOTHINGS`.
    assert!(demo[0] < 0.16 && demo[1..].iter().all(|kv| *kv < 0.95 * demo[0]), "{demo:?}");
    assert!(pairs[0] > 0.5 && pairs[1..].iter().all(|kv| *kv < 1.1 * demo[1]), "{pairs:?}");
    // A channel whose partner is small is nothing that a scale of both can undo.
    assert!(single[..2].iter().all(|kv| *kv > 0.5), "{single:?}");
    assert!(single[2..].iter().all(|kv| *kv < 0.25), "{single:?}");
}
