//! Sites that passes leave alone, and what they say about them: once, and only where one would ask.

use std::sync::Arc;

use fireq_ir::text::{parse_and_verify, print_graph};
use fireq_passes::{Calibration, pipeline_with};

/// What is noted of the sites of a graph that a pipeline leaves alone.
fn refused(passes: &str, body: &str) -> Vec<(String, String)> {
    let mut graph = parse_and_verify(&format!("graph \"case\" {{\n{body}}}\n")).unwrap();
    let calibration = Arc::new(Calibration::random());
    pipeline_with(passes, &calibration).unwrap().run(&mut graph).unwrap();
    let findings = calibration.findings();
    let refused = findings.iter().flat_map(|block| &block.refused);
    refused.map(|one| (one.site.clone(), one.reason.clone())).collect()
}

#[track_caller]
fn check(passes: &str, body: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(site, why)| (site.to_string(), why.to_string())).collect();
    assert_eq!(refused(passes, body), expected, "{passes}");
}

/// Attention of one head that reads a cache of keys and one of values.
fn attention(width: usize, returned: &str) -> String {
    format!(
        "  %0 = input {{name=\"q\"}} : f32[T,{width}]
  %1 = input {{name=\"k\"}} : f32[T,{width}]
  %2 = cache {{name=\"k.0\"}} : f32[P,{width}]
  %3 = kv_append %2, %1 : f32[P+T,{width}]
  %4 = cache {{name=\"v.0\"}} : f32[P,{width}]
  %5 = kv_append %4, %1 : f32[P+T,{width}]
  %6 = attention %0, %3, %5 {{heads=1, kv_heads=1, scale=0.1, p=f32}} : f32[T,{width}]
  return {returned}
"
    )
}

#[test]
fn heads_wider_than_a_scale_keep_their_cache() {
    let wide = [("k.0", "heads of 160 are wider than the 128 channels that one scale covers")];
    check("quantize-kv", &attention(160, "%6"), &wide);
    check("fixpoint(quantize-kv,cse),quantize-kv{fit=clipped}", &attention(160, "%6"), &wide);
    check("quantize-kv", &attention(128, "%6"), &[]);
    let text = format!("graph \"case\" {{\n{}}}\n", attention(160, "%6"));
    let mut graph = parse_and_verify(&text).unwrap();
    assert_eq!(fireq_passes::pipeline("quantize-kv").unwrap().run(&mut graph).unwrap(), 0);
    assert_eq!(print_graph(&graph), text);
}

#[test]
fn a_cache_that_is_read_elsewhere_stays() {
    let shared = [("k.0", "something else reads its content, too")];
    check("quantize-kv", &attention(64, "%6, %3"), &shared);
}

/// A norm and a linear.
fn linear(returned: &str) -> String {
    format!(
        "  %0 = input {{name=\"x\"}} : f32[T,64]
  %1 = const {{name=\"norm\"}} : f32[64]
  %2 = rms_norm %0, %1 {{eps=1e-5}} : f32[T,64]
  %3 = const {{name=\"w\"}} : f32[64,64]
  %4 = linear %2, %3 : f32[T,64]
  return {returned}
"
    )
}

#[test]
fn linears_whose_input_is_read_elsewhere_are_not_smoothed() {
    check("smooth-linears", &linear("%4"), &[]);
    let shared = [("w", "something else reads its input, too")];
    check("smooth-linears,smooth-linears", &linear("%4, %2"), &shared);
}

#[test]
fn weights_that_stay_are_named() {
    let kept = [("w", "option `keep` is `w*`")];
    check("quantize-weights{method=search,keep=w*}", &linear("%4"), &kept);
    let computed = linear("%4").replace("const {name=\"w\"}", "input {name=\"w\"}");
    check("quantize-weights{method=gptq}", &computed, &[("w", "the weight is no constant")]);
    check("smooth-linears", &computed, &[("w", "a weight that reads the same input is no constant")]);
}

#[test]
fn what_is_quantized_already_is_no_refusal() {
    check("quantize-kv,quantize-kv", &attention(64, "%6"), &[]);
    let again = "quantize-weights{method=search},smooth-linears,quantize-weights{method=gptq}";
    check(again, &linear("%4"), &[]);
}

#[test]
fn keys_that_are_read_elsewhere_are_not_smoothed() {
    let turned = |returned: &str| {
        format!(
            "  %0 = input {{name=\"q\"}} : f32[T,4]
  %1 = input {{name=\"positions\"}} : i32[T]
  %2 = const {{name=\"inv_freq\", data=[1.0, 0.1]}} : f32[2]
  %3 = rope_table %1, %2 : f32[T,4]
  %4 = rope %0, %3 : f32[T,4]
  %5 = input {{name=\"k\"}} : f32[T,4]
  %6 = rope %5, %3 : f32[T,4]
  %7 = cache {{name=\"k.0\"}} : f32[P,4]
  %8 = kv_append %7, %6 : f32[P+T,4]
  %9 = cache {{name=\"v.0\"}} : f32[P,4]
  %10 = kv_append %9, %5 : f32[P+T,4]
  %11 = attention %4, %8, %10 {{heads=1, kv_heads=1, scale=0.5, p=f32}} : f32[T,4]
  return {returned}
"
        )
    };
    let shared = [("k.0", "something else reads its keys or queries, too")];
    check("smooth-rope-pre,smooth-rope-post", &turned("%11, %6"), &shared);
    check("smooth-rope-pre,smooth-rope-post", &turned("%11"), &[]);
}
