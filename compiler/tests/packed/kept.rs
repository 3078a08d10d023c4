//! What a recipe makes of codes that a checkpoint has.

use fireq_ir::interp::{Data, eval_constant};
use fireq_ir::plan::{Storage, pack, pack_rows};
use fireq_ir::{Graph, Op};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::pack::Weight;
use super::tiny::{self, Tensors, fireq};
use super::{integers, weight};

fn gptq(group: i64, middle: bool) -> (Value, Tensors) {
    let config =
        json!({ "quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": false, "sym": middle });
    let put = |weight: &Weight, base: &str, tensors: &mut Tensors| weight.gptq(base, true, tensors);
    let (config, tensors, _) = integers(&config, (4, super::size(group), middle, false), put);
    (config, tensors)
}

/// The graph of a model behind a pipeline.
fn behind((config, tensors): &(Value, Tensors), pipeline: &str) -> Graph {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), config, tensors);
    let mut graph = fireq::import::import(dir.path()).unwrap().graph;
    fireq_passes::pipeline(pipeline).unwrap().run(&mut graph).unwrap();
    graph
}

const NAME: &str = "model.layers.1.mlp.down_proj.weight";

#[test]
fn codes_stay_bit_for_bit() {
    for group in [32, 64, -1] {
        let model = gptq(group, true);
        let (before, after) = (behind(&model, "clean"), behind(&model, "quantize-weights"));
        let codes = |graph: &Graph| {
            let mut value = weight(graph, NAME);
            if *graph.op(value) == Op::Dequantize {
                value = graph.operands(value)[0];
            }
            let Data::Quant(q) = eval_constant(graph, value).unwrap().data else { panic!("not codes") };
            q.codes
        };
        assert_eq!(codes(&before), codes(&after), "groups of {group}");
        let [before, after] = [&before, &after].map(|g| eval_constant(g, weight(g, NAME)).unwrap().to_f32());
        let error = fireq::numerics::relative_error(&before, &after);
        // E4M3 rounds scales, and products with 3, 5, 6 and 7; a scale for a whole row is no rounding.
        let allowed = if group == -1 { 0.0 } else { 0.03 };
        assert!(error <= allowed, "groups of {group}: {error}");
    }
}

#[test]
fn rows_of_kept_codes_are_those_of_the_whole() {
    let graph = behind(&gptq(32, true), "quantize-weights");
    let value = weight(&graph, NAME);
    let whole = pack(&graph, value, Storage::Plain).unwrap();
    let some = pack_rows(&graph, value, Storage::Plain, 5..23).unwrap();
    for ((part, some), (_, whole)) in some.iter().zip(&whole) {
        let row = part.row_bytes();
        assert_eq!(some[..], whole[5 * row..23 * row], "{}", part.name);
    }
}

#[cfg(feature = "llvm")]
#[test]
fn compiling_says_what_became_of_codes() {
    let compiled = |model: &(Value, Tensors), more: &[&str]| {
        let dir = TempDir::new().unwrap();
        tiny::write(&dir.path().join("m"), &model.0, &model.1);
        let [m, out] = ["m", "out.fireq"].map(|name| dir.path().join(name).to_str().unwrap().to_string());
        let output = fireq(&[&["compile", &m, "-o", &out], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find(|line| line.starts_with("  codes")).unwrap().to_string()
    };
    let kept = gptq(32, true);
    assert_eq!(compiled(&kept, &[]), "  codes     gptq, 4 bits in groups of 32: kept in 14 weights");
    assert_eq!(
        compiled(&kept, &["--passes", "quantize-weights{codes=requantize},quantize-activations,quantize-kv"]),
        "  codes     gptq, 4 bits in groups of 32: requantized in 14 weights (the recipe)"
    );
    assert_eq!(
        compiled(&kept, &["--recipe", "none"]),
        "  codes     gptq, 4 bits in groups of 32: numbers in 14 weights"
    );
    assert_eq!(
        compiled(&gptq(32, false), &[]),
        "  codes     gptq, 4 bits in groups of 32: requantized in 14 weights (zero points)"
    );
    assert_eq!(
        compiled(&gptq(16, true), &[]),
        "  codes     gptq, 4 bits in groups of 16: requantized in 14 weights (groups of other than multiples of 32)"
    );
}
