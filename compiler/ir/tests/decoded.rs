//! Constants whose rows are made when they are asked for are constants like any other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fireq_ir::interp::eval_constant;
use fireq_ir::plan::{Storage, constant_data, pack, pack_rows, pieces};
use fireq_ir::quant::Quantized;
use fireq_ir::text::{parse_graph, print_graph};
use fireq_ir::verify::verify;
use fireq_ir::{ConstData, DType, Fit, Format, Graph, Op, RowSource, Scheme, Shape, Type};

const ROWS: usize = 700;
const COLS: usize = 416;

fn number(row: usize, col: usize) -> f32 {
    ((row * COLS + col) as f32 * 0.37).sin()
}

/// Rows of [`number`], as numbers or as codes, and the most of them that were asked for at a time.
struct Rows(Option<Format>, AtomicUsize);

impl RowSource for Rows {
    fn rows(&self) -> usize {
        ROWS
    }

    fn row_bytes(&self) -> usize {
        self.0.as_ref().map_or(4 * COLS, |format| COLS / 2 + 4 * format.scheme.0[0].count(COLS))
    }

    fn decode(&self, rows: Range<usize>) -> Vec<u8> {
        self.1.fetch_max(rows.len(), Ordering::Relaxed);
        let numbers: Vec<f32> = rows.flat_map(|row| (0..COLS).map(move |col| number(row, col))).collect();
        let data = match &self.0 {
            None => ConstData::from_f32(&numbers),
            Some(format) => constant_data(Quantized::from_rows(&numbers, COLS, format, Fit::Absmax)),
        };
        data.bytes().unwrap().to_vec()
    }

    fn hash(&self) -> Arc<str> {
        "0123456789abcdef".into()
    }

    fn parts(&self) -> Vec<&ConstData> {
        vec![]
    }
}

fn codes() -> Format {
    Format { dtype: DType::I4, scheme: Scheme::group(32, DType::F32) }
}

fn type_of(format: Option<&Format>) -> Type {
    let plain = Type::plain(DType::F32, Shape::matrix(ROWS, COLS));
    format.map_or(plain.clone(), |format| plain.with_format(format))
}

#[test]
fn they_are_read_in_pieces_and_stand_for_what_the_whole_does() {
    for format in [None, Some(codes())] {
        let ty = type_of(format.as_ref());
        let source = Arc::new(Rows(format.clone(), AtomicUsize::new(0)));
        let whole = ConstData::from_bytes(source.decode(0..ROWS));
        source.1.store(0, Ordering::Relaxed);
        let [mut graph, mut other] = [ConstData::decoded(source.clone()), whole].map(|data| {
            let mut graph = Graph::new("g");
            let constant = graph.constant("w", ty.clone(), data);
            let mut value = constant;
            if format.is_some() {
                value = graph.add(Op::Rescale { to: Format::weight(32) }, &[constant]).unwrap();
            }
            graph.outputs.push(value);
            graph
        });
        for graph in [&mut graph, &mut other] {
            verify(graph).unwrap();
        }
        let (value, storage) = (graph.outputs[0], Storage::Plain);
        let pieces = pieces(&graph, value, storage);
        assert!(pieces.len() > 1);
        let expected = pack(&other, other.outputs[0], storage).unwrap();
        for rows in pieces {
            let found = pack_rows(&graph, value, storage, rows.clone()).unwrap();
            for ((part, found), (_, all)) in found.iter().zip(&expected) {
                let row = part.row_bytes();
                assert_eq!(found[..], all[rows.start * row..rows.end * row], "{ty} {rows:?}");
            }
        }
        assert!(source.1.load(Ordering::Relaxed) < ROWS / 2, "nobody asked for the whole");
        assert_eq!(eval_constant(&graph, value).unwrap(), eval_constant(&other, other.outputs[0]).unwrap());
    }
}

#[test]
fn their_text_is_a_name_and_a_hash() {
    let mut graph = Graph::new("g");
    let data = ConstData::decoded(Arc::new(Rows(None, AtomicUsize::new(0))));
    let w = graph.constant("w", type_of(None), data.clone());
    graph.outputs.push(w);
    let text = print_graph(&graph);
    assert!(text.contains(r#"const {name="w", hash="0123456789abcdef"} : f32[700,416]"#), "{text}");
    assert_eq!(print_graph(&parse_graph(&text).unwrap()), text);
    let numbers: Vec<f32> = (0..ROWS * COLS).map(|i| number(i / COLS, i % COLS)).collect();
    assert_eq!(data.numbers(DType::F32), Some(numbers.clone()));
    let mut seen = vec![];
    assert!(data.for_each_piece(DType::F32, |piece| seen.extend_from_slice(piece)));
    assert_eq!(seen, numbers);
    assert_eq!(data.first_non_finite(DType::F32), None);
}

#[test]
fn a_constant_of_another_size_is_refused() {
    let mut graph = Graph::new("g");
    let ty = Type::plain(DType::F32, Shape::matrix(ROWS + 1, COLS));
    let w = graph.constant("w", ty, ConstData::decoded(Arc::new(Rows(None, AtomicUsize::new(0)))));
    graph.outputs.push(w);
    assert!(verify(&graph).is_err());
}
