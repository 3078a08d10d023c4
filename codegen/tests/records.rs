//! Weights of products for GPUs: in the file as the kernel reads them, and still what was quantized.

use std::fs;

use fireq_codegen::artifact::{Build, Code, Partial, Stored, write};
use fireq_ir::artifact::{CUDA_WEIGHTS, ModelFacts};
use fireq_ir::interp::eval_constant;
use fireq_ir::plan::{Storage, lower_fused, parse_plan, print_plan, unpack, verify_plan};
use fireq_ir::text::parse_graph;
use safetensors::{Dtype, SafeTensors};

/// A product that a kernel does, and one whose groups it does not know.
const MODEL: &str = r#"
graph "small" {
  %0 = input {name="x"} : f32[T,176]
  %1 = quantize %0 {to=e4m3<row:f32>} : e4m3<row:f32>[T,176]
  %2 = const {name="up"} : bf16[36,176]
  %3 = quantize %2 {to=i4<g128:e4m3,row:f32>} : i4<g128:e4m3,row:f32>[36,176]
  %4 = linear %1, %3 : f32[T,36]
  %5 = const {name="side"} : bf16[36,176]
  %6 = quantize %5 {to=i4<g32:e4m3,row:f32>} : i4<g32:e4m3,row:f32>[36,176]
  %7 = linear %1, %6 : f32[T,36]
  %8 = add %4, %7 : f32[T,36]
  return %8
}
"#;

#[test]
fn weights_of_products_are_records_of_what_was_quantized() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.fireq");
    let graph = parse_graph(MODEL).unwrap();
    let lowered = lower_fused(&graph).unwrap();
    let build = Build {
        weightless: false,
        graph: &graph,
        plans: vec![Stored::cuda(&graph, &lowered)],
        recipe: "test",
        model: ModelFacts { context: 64, vocab: 36, bos: None, eos: vec![] },
        copies: vec![],
        texts: vec![],
        threads: 2,
        key: String::new(),
        sources: fireq_ir::Sources::default(),
    };
    write(&build, &Partial::open(&out).unwrap(), |_| Ok(Code::default()), &|_| ()).unwrap();
    let bytes = fs::read(out.join(CUDA_WEIGHTS)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!(metadata["layout.up"], "records i4<g128:e4m3,row:f32>[36,176]");
    assert_eq!(metadata["layout.side"], "plain i4<g32:e4m3,row:f32>[36,176]");

    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let records = tensors.tensor("up.records").unwrap();
    assert_eq!((records.dtype(), records.shape()), (Dtype::U8, &[128, 2 * 65][..]));
    assert_eq!(
        header.info("up.records").unwrap().data_offsets.0 % 16,
        0,
        "bulk copies start at multiples of 16"
    );
    let value = lowered.weights["up"];
    let arrays = ["up.records", "up.outer"].map(|name| tensors.tensor(name).unwrap().data());
    let found = unpack(graph.ty(value), Storage::Records, &arrays).unwrap();
    assert_eq!(found, eval_constant(&graph, value).unwrap());
}

#[test]
fn plans_with_records_print_parse_and_are_checked() {
    let plan = lower_fused(&parse_graph(MODEL).unwrap()).unwrap().plan;
    let text = print_plan(&plan);
    assert!(text.contains("weight \"up\" records i4<g128:e4m3,row:f32>[36,176]"), "{text}");
    assert_eq!(parse_plan(&text).unwrap(), plan);
    for wrong in [text.replace("records i4<g128", "i4<g128"), text.replace("i4<g32", "records i4<g32")] {
        let error = verify_plan(&parse_plan(&wrong).unwrap()).unwrap_err().to_string();
        assert!(error.contains("is stored in the wrong order"), "{error}");
    }
}
