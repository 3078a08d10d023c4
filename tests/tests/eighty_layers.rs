//! A model of 80 layers in which every layer must come out folded, and fused: Llama-3-70B's shape without its weights,
//! with a scale wherever smoothing puts one. An e-graph over the whole model would leave layers unfused in silence.

use std::time::Instant;

use fireq::import::{ImportOptions, import_shape};
use fireq_ir::expression::is_constant;
use fireq_ir::{ConstData, DType, Graph, Moved, Op, Patch, Shape, Type, ValueId};

const LAYERS: usize = 80;

const CONFIG: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 8192,
  "intermediate_size": 28672, "max_position_embeddings": 8192, "num_attention_heads": 64, "num_hidden_layers": 80,
  "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "vocab_size": 128256
}"#;

fn model() -> Graph {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    import_shape(dir.path(), ImportOptions::default()).unwrap().graph
}

/// A scale after every norm of a block, every rope, every attention and every SiLU(gate)·up: six for each layer.
fn smooth(graph: &mut Graph) -> usize {
    let mut moved = Moved::new();
    let sites: Vec<ValueId> = graph.schedule().into_iter().filter(|v| smoothed(graph, *v)).collect();
    for (n, value) in sites.iter().enumerate() {
        let width = graph.ty(*value).shape.cols().fixed().unwrap();
        // Equal on both channels of each pair that rope turns, and in all query heads of a kv head.
        let number = |i: usize| 0.5 + ((i % 64 * 37 + n * 11) % 97) as f32 / 64.0;
        let numbers: Vec<f32> = (0..width).map(number).collect();
        let mut patch = Patch::new("smooth");
        let ty = Type::plain(DType::F32, Shape::vector(width));
        let scale = patch.constant(&format!("scale.{n}"), ty, ConstData::from_f32(&numbers));
        let scaled = patch.add(graph, Op::Scale, &[(*value).into(), scale]).unwrap();
        patch.replace(*value, scaled);
        graph.apply(patch, &mut moved).unwrap();
    }
    sites.len()
}

fn smoothed(graph: &Graph, value: ValueId) -> bool {
    match graph.op(value) {
        Op::RmsNorm { .. } => graph.users(value).len() > 1,
        Op::Rope | Op::Mul | Op::Attention { .. } => true,
        _ => false,
    }
}

fn count(graph: &Graph, wanted: impl Fn(ValueId, &Op) -> bool) -> usize {
    graph.schedule().into_iter().filter(|v| wanted(*v, graph.op(*v))).count()
}

fn run_time_scales(graph: &Graph) -> usize {
    count(graph, |v, op| *op == Op::Scale && !is_constant(graph, v))
}

#[test]
fn every_layer_is_folded_and_fused() {
    let mut graph = model();
    assert_eq!(smooth(&mut graph), 6 * LAYERS);
    assert_eq!(run_time_scales(&graph), 6 * LAYERS);
    let began = Instant::now();
    let patches = fireq_passes::pipeline("fold-scales").unwrap().run(&mut graph).unwrap();
    eprintln!("fold-scales: {patches} patches in {:.3} s", began.elapsed().as_secs_f64());
    assert_eq!(run_time_scales(&graph), 0);
    // N into the rows of q and k, the scale of attention into those of v, that of the product into those of up.
    assert_eq!(count(&graph, |_, op| *op == Op::ScaleRows), 4 * LAYERS);

    fireq_passes::pipeline("const-fold,rtn,fuse").unwrap().run(&mut graph).unwrap();
    let fused = |mnemonic: &str| count(&graph, |_, op| op.mnemonic() == mnemonic);
    assert_eq!(fused("norm_quantize"), 2 * LAYERS);
    assert_eq!(fused("linear_swiglu"), LAYERS);
    assert_eq!(fused("linear_add"), 2 * LAYERS);
    assert_eq!(fused("rope_quantize"), LAYERS);
    assert_eq!(fused("rope_append"), LAYERS);
    assert_eq!(fused("quantize_append"), LAYERS);
    // What is left unfused: q, k and v as one, and the head.
    assert_eq!(fused("linear"), LAYERS + 1);
}
