//! Twins with outliers (`cargo xtask outliers`) compute what their originals do, and their keys are hard to quantize.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fireq::import::{ModelConfig, import, layout};
use fireq_ir::interp::{Tensor, interpret};
use fireq_ir::{Graph, Op};
use fireq_tests::relative_error;
use half::bf16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::outliers::{Factors, Kind, Request, write};

const KINDS: [Kind; 5] = [Kind::Norms, Kind::Mlp, Kind::Keys, Kind::KeyBias, Kind::All];

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tinystories-3m")
}

fn twin(model: &Path, out: &Path, kind: Kind) -> Result<Option<String>, String> {
    write(model, out, &Request { kind, seed: 3, factors: Factors::default() })
}

/// What a model computes: logits of every token, and rows of Q and K after rope in each layer.
struct Run {
    logits: Vec<f32>,
    attention: Vec<(Tensor, Tensor)>,
    head_dim: usize,
}

/// Runs the model in `dir` on tokens that visit much of its vocabulary.
fn run(dir: &Path, tokens: usize) -> Run {
    let mut model = import(dir).unwrap();
    let graph = &mut model.graph;
    let is_attention = |v: &_| matches!(graph.op(*v), Op::Attention { .. });
    let attentions: Vec<_> = graph.schedule().into_iter().filter(is_attention).collect();
    for attention in &attentions {
        let taps = graph.operands(*attention)[..2].to_vec();
        graph.outputs.extend(taps);
    }
    let ids: Vec<i32> = (0..tokens).map(|t| (t * t * 31 % model.config.vocab) as i32).collect();
    let positions: Vec<i32> = (0..tokens as i32).collect();
    let inputs = [("tokens", &ids), ("positions", &positions), ("select", &positions)];
    let inputs = inputs.map(|(name, values)| (name.to_string(), Tensor::from_i32(values))).into();
    let mut outputs = interpret(graph, &inputs, &caches(graph)).unwrap().outputs;
    let taps = outputs.split_off(1);
    let attention = taps.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Run { logits: outputs[0].to_f32(), attention, head_dim: model.config.head_dim }
}

fn caches(graph: &Graph) -> BTreeMap<String, Tensor> {
    let cache = |value| match graph.op(value) {
        Op::Cache { name } => Some((name.to_string(), Tensor::empty_cache(graph.ty(value)))),
        _ => None,
    };
    graph.schedule().into_iter().filter_map(cache).collect()
}

#[track_caller]
fn check_logits(expected: &Run, dir: &Path, tokens: usize) {
    let error = relative_error(&expected.logits, &run(dir, tokens).logits);
    eprintln!("{}: relative error {error:.1e}", dir.display());
    assert!(error <= 1e-4, "{}: relative error {error:.1e}", dir.display());
}

#[test]
fn twins_of_the_demo_model_give_its_logits() {
    let (temp, expected) = (TempDir::new().unwrap(), run(&demo(), 48));
    for kind in KINDS {
        let out = temp.path().join(format!("{kind:?}"));
        assert_eq!(twin(&demo(), &out, kind), Ok(None));
        check_logits(&expected, &out, 48);
    }
}

/// Grouped queries, biases, and heads whose pairs outnumber those that get doubled, or do not.
fn config(model_type: &str, head_dim: usize) -> Value {
    let class = model_type[..1].to_uppercase() + &model_type[1..] + "ForCausalLM";
    json!({
        "architectures": [class], "model_type": model_type, "vocab_size": 32, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": head_dim, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_theta": 10000.0, "tie_word_embeddings": false, "attention_bias": true, "mlp_bias": true,
        "torch_dtype": "bfloat16", "sliding_window": null,
    })
}

/// Writes a model of random bf16 weights in two shards.
fn random_model(dir: &Path, config: &Value) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut state = 1u64;
    let mut tensor = |shape: &[usize]| -> Vec<u8> {
        let mut number = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let uniform = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            bf16::from_f32(if shape.len() == 1 { 1.0 } else { 0.0 } + 0.3 * uniform).to_le_bytes()
        };
        (0..shape.iter().product()).flat_map(|_| number()).collect()
    };
    let all: Vec<_> = layout(&ModelConfig::read(dir).unwrap())
        .into_iter()
        .map(|(name, shape)| (name, tensor(&shape), shape))
        .collect();
    let mut index = BTreeMap::new();
    for (n, part) in all.chunks(all.len() / 2 + 1).enumerate() {
        let file = format!("model-{n}.safetensors");
        let view = |bytes, shape: &Vec<usize>| TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap();
        let views = part.iter().map(|(name, bytes, shape)| (name.clone(), view(bytes, shape)));
        fs::write(dir.join(&file), serialize(views, None).unwrap()).unwrap();
        index.extend(part.iter().map(|(name, ..)| (name.clone(), file.clone())));
    }
    let index = json!({ "weight_map": index });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// Key biases are refused with a reason that holds `refusal`; all kinds do without them then.
#[track_caller]
fn check_family(config: &Value, refusal: Option<&str>) {
    let temp = TempDir::new().unwrap();
    let model = temp.path().join("model");
    random_model(&model, config);
    let expected = run(&model, 24);
    for kind in KINDS {
        let out = temp.path().join(format!("{kind:?}"));
        match (kind, twin(&model, &out, kind), refusal) {
            (Kind::KeyBias, Err(reason), Some(refusal)) => {
                assert!(reason.contains(refusal), "{reason}");
                assert!(!out.exists());
                continue;
            }
            (Kind::All, Ok(Some(left_out)), Some(refusal)) => {
                assert!(left_out.contains(refusal), "{left_out}");
            }
            (Kind::KeyBias | Kind::All, outcome, Some(_)) => panic!("{kind:?}: {outcome:?}"),
            (_, outcome, _) => assert_eq!(outcome, Ok(None), "{kind:?}"),
        }
        check_logits(&expected, &out, 24);
    }
}

#[test]
fn twins_of_llama_with_biases() {
    check_family(&config("llama", 48), None);
}

#[test]
fn twins_of_qwen2() {
    check_family(&config("qwen2", 16), None);
}

#[test]
fn twins_of_qwen3_with_norms_and_biases() {
    check_family(&config("qwen3", 32), Some("keys of qwen3"));
}

#[test]
fn twins_of_mistral() {
    check_family(&config("mistral", 32), Some("keys of mistral"));
}

#[test]
fn twins_of_scaled_rope() {
    let mut config = config("llama", 32);
    config["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0});
    check_family(&config, Some("rope of type `linear`"));
}

#[test]
fn twins_of_the_widest_heads() {
    check_family(&config("llama", 128), Some("160 channels"));
}

/// Largest absolute value of each channel.
fn reach(k: &Tensor) -> Vec<f32> {
    let (values, width) = (k.to_f32(), k.cols());
    (0..width).map(|c| values.iter().skip(c).step_by(width).fold(0.0, |m: f32, x| m.max(x.abs()))).collect()
}

/// Keys of a head after INT4 with one scale per token, where channels were multiplied by `scales` meanwhile.
fn quantized(keys: &[f32], scales: &[f32]) -> Vec<f32> {
    let token = |row: &[f32]| {
        let scaled: Vec<f32> = row.iter().zip(scales).map(|(k, s)| k * s).collect();
        let step = scaled.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 7.0;
        scaled.iter().zip(scales).map(|(k, s)| (k / step).round() * step / s).collect::<Vec<_>>()
    };
    keys.chunks(scales.len()).flat_map(token).collect()
}

/// How far quantized keys put the logits of a head's last query off; what all keys share is nothing to softmax.
fn logit_error(query: &[f32], keys: &[f32], scales: &[f32]) -> f64 {
    let off = quantized(keys, scales).iter().zip(keys).map(|(a, b)| a - b).collect::<Vec<_>>();
    let dot = |row: &[f32]| row.iter().zip(query).map(|(k, q)| f64::from(k * q)).sum::<f64>();
    let errors: Vec<f64> = off.chunks(query.len()).map(dot).collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    errors.iter().map(|e| (e - mean).powi(2)).sum()
}

/// Scales for the keys of a head with these maxima: none, one for each pair (N), and one for each channel of the pairs
/// in which a channel stands out (N and S). Checks that there are 16 such pairs.
fn scalings(reach: &[f32]) -> [Vec<f32>; 3] {
    let half = reach.len() / 2;
    let mut sorted = reach.to_vec();
    sorted.sort_by(f32::total_cmp);
    let lone = |i: usize| reach[i] > 10.0 * sorted[half] && reach[i] > 5.0 * reach[i + half];
    assert_eq!((0..half).filter(|i| lone(*i)).count(), 16, "channel maxima of a head {reach:?}");
    let shared = |c: usize| 1.0 / reach[c % half].hypot(reach[c % half + half]);
    let own = |c: usize| if lone(c % half) { 1.0 / reach[c] } else { shared(c) };
    let channels = 0..reach.len();
    [vec![1.0; reach.len()], channels.clone().map(shared).collect(), channels.map(own).collect()]
}

#[test]
fn key_biases_stand_out_in_one_channel_of_a_pair_and_need_a_scale_of_its_own() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("twin");
    twin(&demo(), &out, Kind::KeyBias).unwrap();
    let run = run(&out, 128);
    let (dim, mut errors) = (run.head_dim, [0.0; 3]);
    for (q, k) in &run.attention {
        let (queries, all, group) = (q.to_f32(), k.to_f32(), q.cols() / k.cols());
        let last = &queries[queries.len() - q.cols()..];
        for (head, reach) in reach(k).chunks(dim).enumerate() {
            let row = |row: &[f32]| row[head * dim..][..dim].to_vec();
            let keys: Vec<f32> = all.chunks(k.cols()).flat_map(row).collect();
            for (total, scales) in errors.iter_mut().zip(scalings(reach)) {
                let queries = last[head * group * dim..].chunks(dim).take(group);
                *total += queries.map(|query| logit_error(query, &keys, &scales)).sum::<f64>();
            }
        }
    }
    let [none, shared, own] = errors.map(f64::sqrt);
    eprintln!("logits are off by {none:.1} with no scales, {shared:.1} with N, {own:.1} with N and S");
    // Either way the channel that stands out loses what it holds beside its bias.
    assert!(shared < 0.5 * none && own < 0.92 * shared, "{none} {shared} {own}");
}
