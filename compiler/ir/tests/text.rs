//! Text in, text out: canonical form, errors in place, and no input that makes the parsers panic.

use fireq_ir::plan::{lower, parse_plan, print_plan, verify_plan};
use fireq_ir::text::{TextError, parse_and_verify, parse_graph, print_graph};
use fireq_ir::{ConstData, DType, Dim, FITS, Format, Graph, Op, Shape, Type, ValueId};
use proptest::prelude::*;

const SMALL: &str = r#"graph "small" {
  %0 = input {name="x"} : f32[T,64]
  %1 = const {name="norm", data=[1.0, -0.0, 1e-5, 3.4028235e38]} : f32[4]
  %2 = rms_norm %0, %1 {eps=1e-6} : f32[T,64]
  %3 = quantize %2 {to=e4m3<row:f32>} : e4m3<row:f32>[T,64]
  %4 = const {name="w", hash="0011223344556677"} : bf16[8,64]
  %5 = quantize %4 {to=i4<g128:e4m3,row:f32>} : i4<g128:e4m3,row:f32>[8,64]
  %6 = linear %3, %5 : f32[T,8]
  %7 = mul %6, %6 : f32[T,8]
  return %7
}
"#;

#[test]
fn canonical_text_is_a_fixpoint() {
    let graph = parse_and_verify(SMALL).unwrap();
    assert_eq!(print_graph(&graph), SMALL);
    let plan = lower(&graph).unwrap().plan;
    let text = print_plan(&plan);
    assert_eq!(parse_plan(&text).unwrap(), plan);
    verify_plan(&plan).unwrap();
}

#[test]
fn comments_blanks_and_numbers_do_not_matter() {
    let loose =
        SMALL.replace("%7", "%70").replace("  %2", "// a comment\n\n\t%2  ").replace(" {eps", "{ eps");
    assert_eq!(print_graph(&parse_graph(&loose).unwrap()), SMALL);
}

/// Each error of a text with one thing changed: what is replaced, by what, and the start of the message.
#[test]
fn errors_say_what_and_where() {
    let cases = [
        ("graph \"small\"", "grph \"small\"", "expected `graph`, found `grph`", 1, 1),
        ("rms_norm %0", "rms_nrm %0", "unknown operation `rms_nrm`", 4, 8),
        ("{eps=1e-6}", "{esp=1e-6}", "`rms_norm` has no attribute `esp`", 4, 25),
        (" {eps=1e-6}", "", "attribute `eps` is missing", 4, 8),
        ("eps=1e-6", "eps=\"a\"", "attribute `eps` wants a number", 4, 8),
        ("row:f32>}", "row:f32>, fit=singed}", "attribute `fit` wants `absmax`, `signed` or", 5, 8),
        ("{to=e4m3<row:f32>}", "{to=e4m4}", "attribute `to` wants a format such as", 5, 8),
        ("{to=e4m3<", "{to=e4m4<", "unknown dtype `e4m4`", 5, 24),
        ("%6, %6", "%6, %9", "%9 is not defined before this line", 9, 16),
        ("%4 = const", "%2 = const", "%2 is defined twice", 6, 3),
        ("bf16[8,64]", "bf17[8,64]", "unknown dtype `bf17`", 6, 52),
        ("i4<g128:e4m3,row:f32>[8", "i4<q128:e4m3>[8", "`q128` is neither `row` nor a group", 7, 52),
        ("f32[T,8]\n  return", "f32[T;8]\n  return", "unexpected character `;`", 9, 26),
        ("\"norm\"", "\"norm", "the string does not end on its line", 3, 20),
        ("-0.0", "1e99", "`1e99` does not fit an f32", 3, 39),
        (
            "f32[4]",
            "f32[99999999999999999999]",
            "`99999999999999999999` is not a whole number that fits",
            3,
            72,
        ),
        ("return %7\n}", "return %7", "expected `}`, found the end of the text", 11, 1),
    ];
    for (from, to, message, line, column) in cases {
        assert!(SMALL.contains(from), "{from}");
        let error = parse_graph(&SMALL.replacen(from, to, 1)).unwrap_err();
        assert!(error.message.starts_with(message), "{to}: {}", error.message);
        assert_eq!((error.line, error.column), (line, column), "{to}: {error}");
    }
}

#[test]
fn an_error_shows_its_line_and_a_hint() {
    let error = parse_graph(&SMALL.replace("rms_norm", "rms_nrm")).unwrap_err();
    let expected = "\
unknown operation `rms_nrm`
 --> line 4, column 8
  |
4 |   %2 = rms_nrm %0, %1 {eps=1e-6} : f32[T,64]
  |        ^^^^^^^
  = help: did you mean `rms_norm`?";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn words_are_answered_with_the_nearest() {
    for (from, to, hint) in [
        ("row:f32>}", "row:f32>, fit=singed}", "did you mean `signed`?"),
        ("{to=e4m3<row:f32>}", "{to=e4m4}", "did you mean `e4m3`?"),
    ] {
        let error = parse_graph(&SMALL.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some(hint));
    }
}

#[test]
fn a_default_may_be_written_and_is_not_printed() {
    let written = SMALL.replace("row:f32>}", "row:f32>, fit=absmax}");
    assert_eq!(print_graph(&parse_and_verify(&written).unwrap()), SMALL);
    let other = SMALL.replace("row:f32>}", "row:f32>, fit=clipped}");
    assert_eq!(print_graph(&parse_and_verify(&other).unwrap()), other);
}

#[test]
fn a_verifier_error_points_at_its_line() {
    let error = parse_and_verify(&SMALL.replace("%7 = mul %6, %6 : f32[T,8]", "%7 = mul %6, %6 : f32[T,9]"))
        .unwrap_err();
    let TextError::Verify(place, errors) = error else { panic!("it parses") };
    assert_eq!((place.line, place.message.as_str()), (9, "has type f32[T,8], not f32[T,9]"));
    assert_eq!(errors.0.len(), 1);
}

/// Grows a graph from random bytes: each byte adds an operation that fits the last value.
fn grow(bytes: &[u8]) -> Graph {
    let mut g = Graph::new("random \"graph\"");
    let x = g.input("x", Type::f32(Dim::sym("T"), 64usize));
    let mut values = vec![x];
    for (n, byte) in bytes.iter().enumerate() {
        let pick = |k: usize| values[(*byte as usize / 8 + k) % values.len()];
        let name = format!("c{n}");
        let value: ValueId = match byte % 8 {
            0 => g.add(Op::Silu, &[pick(0)]).unwrap(),
            1 => g.add(Op::Mul, &[pick(0), pick(1)]).unwrap(),
            2 => g.add(Op::Add, &[pick(0), pick(0)]).unwrap(),
            3 => {
                let data: Vec<f32> = (0..64).map(|i| i as f32 * 0.25 + *byte as f32).collect();
                let c =
                    g.constant(&name, Type::plain(DType::F32, Shape::vector(64)), ConstData::from_f32(&data));
                g.add(Op::RmsNorm { eps: f32::from(*byte) * 1e-7 }, &[pick(0), c]).unwrap()
            }
            4 => {
                let c = g.constant(
                    &name,
                    Type::plain(DType::F32, Shape::vector(2)),
                    ConstData::from_f32(&[0.1, -0.0]),
                );
                g.add(Op::RmsNorm { eps: 1e-5 }, &[pick(0), c]).unwrap()
            }
            5 => {
                let to = if byte & 64 == 0 { Format::query(32) } else { Format::kv(32) };
                let fit = FITS[*byte as usize / 8 % FITS.len()];
                let q = g.add(Op::Quantize { to, fit }, &[pick(0)]).unwrap();
                g.add(Op::Dequantize, &[q]).unwrap()
            }
            6 => {
                let w = g.constant(
                    &name,
                    Type::plain(DType::BF16, Shape::matrix(64, 64)),
                    ConstData::Elided { hash: None },
                );
                g.add(Op::Linear, &[pick(0), w]).unwrap()
            }
            _ => {
                let c = g.constant(
                    &name,
                    Type::plain(DType::F16, Shape::vector(64)),
                    ConstData::Elided { hash: Some("ab".into()) },
                );
                g.add(Op::Scale, &[pick(0), c]).unwrap()
            }
        };
        values.push(value);
    }
    g.outputs = vec![*values.last().unwrap()];
    g
}

/// What takes time that grows with the square of a text's length takes minutes here.
#[test]
fn long_texts_take_as_long_as_they_are() {
    let graph = |ty: &str, attrs: &str, lines: &str, last: usize| {
        format!("graph \"g\" {{\n  %0 = input {{name=\"x\"{attrs}}} : {ty}\n{lines}  return %{last}\n}}\n")
    };
    let attrs: String = (0..200_000).map(|n| format!(", a{n}=1")).collect();
    let error = parse_graph(&graph("f32[T,4]", &attrs, "", 0)).unwrap_err().to_string();
    assert!(error.starts_with("`input` has no attribute `a0`"), "{}", &error[..80]);
    let error = parse_graph(&graph("f32[T,4]", &format!("{attrs}, a7=1"), "", 0)).unwrap_err();
    assert_eq!(error.message, "attribute `a7` stands twice");
    let sum = parse_graph(&graph(&format!("f32[T{},4]", "+T".repeat(400_000)), "", "", 0)).unwrap();
    assert_eq!(sum.ty(sum.outputs[0]).shape.rows().to_string().len(), 800_001);
    let lines: String = (1..100_000).map(|n| format!("  %{n} = silu %{} : f32[T,4]\n", n - 1)).collect();
    let chain = parse_and_verify(&graph("f32[T,4]", "", &lines, 99_999)).unwrap();
    assert_eq!(print_graph(&chain).lines().count(), 100_003);
}

proptest! {
    #[test]
    fn parse_inverts_print(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
        let graph = grow(&bytes);
        let text = print_graph(&graph);
        let parsed = parse_and_verify(&text).unwrap();
        prop_assert_eq!(print_graph(&parsed), text);
        if let Ok(lowered) = lower(&graph) {
            let plan = print_plan(&lowered.plan);
            let parsed = parse_plan(&plan).unwrap();
            verify_plan(&parsed).unwrap();
            prop_assert_eq!(print_plan(&parsed), plan);
        }
    }

    #[test]
    fn damaged_text_never_panics(at in 0..SMALL.len(), cut in 0usize..12, insert in "[ -~]{0,6}") {
        let mut damaged = SMALL.to_string();
        damaged.replace_range(at..(at + cut).min(SMALL.len()), &insert);
        let _ = parse_and_verify(&damaged).map(|g| lower(&g).map(|l| verify_plan(&l.plan)));
        let plan = print_plan(&lower(&parse_graph(SMALL).unwrap()).unwrap().plan);
        let at = at % plan.len();
        let mut damaged = plan.clone();
        damaged.replace_range(at..(at + cut).min(plan.len()), &insert);
        let _ = parse_plan(&damaged).map(|plan| verify_plan(&plan));
    }
}
