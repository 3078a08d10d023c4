//! Weights that are packed some rows at a time have the bytes of weights that are packed whole.

use std::collections::BTreeSet;

use fireq_ir::plan::{Storage, pack, pack_rows, parts, pieces};
use fireq_ir::text::parse_graph;
use fireq_ir::{ConstData, DType, Graph, Op, ValueId};

/// Weights of several pieces, whose last is shorter; every way to make them that keeps rows apart.
const ROW_WISE: &str = r#"
graph "weights" {
  %0 = const {name="f32"} : f32[700,416]
  %1 = const {name="bf16"} : bf16[700,416]
  %2 = const {name="f16"} : f16[233,416]
  %3 = const {name="columns"} : f32[416]
  %4 = const {name="rows"} : bf16[700]
  %5 = scale %1, %3 : f32[700,416]
  %6 = scale_rows %5, %4 : f32[700,416]
  %7 = add %6, %0 : f32[700,416]
  %8 = quantize %7 {to=i4<g64:e4m3,row:f32>} : i4<g64:e4m3,row:f32>[700,416]
  %9 = quantize %1 {to=i4<g32:e4m3,row:f32>, fit=signed} : i4<g32:e4m3,row:f32>[700,416]
  %10 = quantize %2 {to=i4<g128:e4m3,row:f32>, fit=clipped} : i4<g128:e4m3,row:f32>[233,416]
  %11 = quantize %0 {to=i4<g128:e4m3,row:f32>} : i4<g128:e4m3,row:f32>[700,416]
  %12 = concat %10, %11 : i4<g128:e4m3,row:f32>[933,416]
  %13 = concat %12, %10 : i4<g128:e4m3,row:f32>[1166,416]
  %14 = quantize %0 {to=e4m3<row:f32>} : e4m3<row:f32>[700,416]
  %15 = dequantize %11 : f32[700,416]
  %16 = const {name="lines"} : bf16[702,384]
  %17 = quantize %16 {to=i4<g128:e4m3,row:f32>} : i4<g128:e4m3,row:f32>[702,384]
  return %0, %1, %6, %8, %9, %11, %13, %14, %15, %17
}
"#;

/// What mixes rows, is no matrix, or has no data.
const WHOLE: &str = r#"
graph "weights" {
  %0 = const {name="f32"} : f32[700,416]
  %1 = transpose %0 : f32[416,700]
  %2 = quantize %1 {to=i4<g64:e4m3,row:f32>} : i4<g64:e4m3,row:f32>[416,700]
  %3 = reshape %0 {rows=416, cols=700} : f32[416,700]
  %4 = const {name="long"} : bf16[300000]
  %5 = const {name="elided"} : bf16[700,416]
  %6 = const {name="columns"} : f32[416]
  %7 = scale %5, %6 : f32[700,416]
  return %2, %3, %4, %5, %7
}
"#;

/// A graph with numbers for every constant but elided ones.
fn graph(text: &str) -> Graph {
    let mut graph = parse_graph(text).unwrap();
    for value in graph.schedule() {
        let Op::Const { name } = graph.op(value).clone() else { continue };
        let ty = graph.ty(value);
        let numbers = (0..ty.shape.elements().unwrap()).map(|i| ((i * i % 9973) as f32 * 0.37).sin());
        let data = match ty.dtype {
            DType::BF16 => numbers.flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect(),
            DType::F16 => numbers.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
            _ => numbers.flat_map(f32::to_le_bytes).collect(),
        };
        if &*name != "elided" {
            graph.constants.insert(name, ConstData::from_bytes(data));
        }
    }
    graph
}

fn storages(graph: &Graph, value: ValueId) -> impl Iterator<Item = Storage> {
    let has = move |storage: &Storage| parts(graph.ty(value), *storage).is_some();
    [Storage::Plain, Storage::Blocked32, Storage::Interleaved, Storage::Records].into_iter().filter(has)
}

#[test]
fn pieces_have_the_bytes_of_the_whole() {
    let graph = graph(ROW_WISE);
    let mut seen = BTreeSet::new();
    for value in graph.outputs.clone() {
        for storage in storages(&graph, value).collect::<Vec<_>>() {
            let pieces = pieces(&graph, value, storage);
            assert!(pieces.len() > 1 && pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
            let mut all: Vec<Vec<u8>> = vec![];
            for rows in pieces {
                let packed = pack_rows(&graph, value, storage, rows.clone()).unwrap();
                all.resize(packed.len(), vec![]);
                for ((part, bytes), all) in packed.iter().zip(&mut all) {
                    assert_eq!(part.stored(rows.start).unwrap().1, all.len(), "where a piece goes");
                    all.extend_from_slice(bytes);
                }
            }
            let whole = pack(&graph, value, storage).unwrap();
            let same = whole.iter().zip(&all).all(|((_, whole), all)| **whole == **all);
            assert!(same && whole.len() == all.len(), "{} {storage:?}", graph.ty(value));
            seen.insert(storage);
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn constants_of_codes_are_packed_in_pieces_too() {
    let mut graph = graph(ROW_WISE);
    let codes = graph.outputs[6];
    let packed = pack(&graph, codes, Storage::Plain).unwrap();
    let data = packed.into_iter().flat_map(|(_, bytes)| bytes.into_owned()).collect();
    let ty = graph.ty(codes).clone();
    let constant = graph.constant("codes", ty, ConstData::from_bytes(data));
    let rows = pieces(&graph, constant, Storage::Blocked32);
    assert!(rows.len() > 1);
    let blocks = |value, rows| pack_rows(&graph, value, Storage::Blocked32, rows).unwrap();
    for rows in rows {
        assert_eq!(blocks(constant, rows.clone()), blocks(codes, rows));
    }
}

#[test]
fn what_mixes_rows_is_one_piece() {
    let graph = graph(WHOLE);
    for value in &graph.outputs {
        let rows = graph.ty(*value).shape.rows().fixed().unwrap();
        let pieces = pieces(&graph, *value, Storage::Plain);
        assert_eq!((pieces.len(), &pieces[0]), (1, &(0..rows)), "{}", graph.op(*value).mnemonic());
    }
}

#[test]
fn a_number_that_is_not_finite_is_named_in_any_piece() {
    let mut graph = graph(ROW_WISE);
    let (mut bytes, at) = (graph.constants["bf16"].bytes().unwrap().to_vec(), 650 * 416 + 7);
    bytes[2 * at..][..2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    graph.constants.insert("bf16".into(), ConstData::from_bytes(bytes));
    let codes = graph.outputs[4];
    let failures: Vec<String> = pieces(&graph, codes, Storage::Plain)
        .into_iter()
        .filter_map(|rows| pack_rows(&graph, codes, Storage::Plain, rows).err())
        .map(|error| error.to_string())
        .collect();
    assert_eq!(failures, [format!("`const`: `bf16`: element {at} is NaN; weights must be finite")]);
}
