//! The pass developer's bench: what is seen of passes, what a failure leaves behind, and finding the patch that broke it.

mod tiny;

use std::fs;
use std::path::Path;

use fireq::bisect::{Check, bisect};
use fireq_ir::text::{parse_and_verify, print_graph};
use fireq_ir::{Effect, Graph, Op, Pass, PassError, Patch, Pipeline, RunOptions, Step, Stopped, Unobserved};
use tempfile::TempDir;
use tiny::fireq;

const MLP: &str = r#"graph "mlp" {
  %0 = input {name="x"} : f32[T,64]
  %1 = const {name="gate"} : bf16[64,64]
  %2 = linear %0, %1 : f32[T,64]
  %3 = silu %2 : f32[T,64]
  %4 = const {name="up"} : bf16[64,64]
  %5 = linear %0, %4 : f32[T,64]
  %6 = mul %3, %5 : f32[T,64]
  %7 = const {name="down"} : bf16[64,64]
  %8 = linear %6, %7 : f32[T,64]
  return %8
}
"#;

/// A wide head, which quantize-kv refuses.
/// A graph that `const-fold` cannot compute.
const OUTSIDE: &str = r#"graph "outside" {
  %0 = const {name="table", data=[1.0, 2.0]} : f32[2,1]
  %1 = const {name="index", data=[7.0]} : i32[1]
  %2 = gather %0, %1 : f32[1,1]
  return %2
}
"#;

fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("case.ir");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

/// Exit code, stdout and stderr.
fn opt(args: &[&str]) -> (Option<i32>, String, String) {
    let result = fireq(&[&["opt"], args].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (result.status.code(), text(result.stdout), text(result.stderr))
}

#[test]
fn ir_is_printed_before_and_after_passes_as_asked() {
    let dir = TempDir::new().unwrap();
    let case = file(dir.path(), MLP);
    let passes = ["--passes", "cse,quantize-weights,quantize-activations"];
    let heads = |option: &str, value: &str| {
        let (code, _, log) = opt(&[&[case.as_str(), option, value], &passes[..]].concat());
        assert_eq!(code, Some(0), "{log}");
        log.lines().filter(|l| l.starts_with("//")).map(String::from).collect::<Vec<_>>()
    };
    let after = [
        "// after cse: 0 patches",
        "// after quantize-weights: 3 patches",
        "// after quantize-activations: 2 patches",
    ];
    assert_eq!(heads("--print-ir-after", "all"), after);
    assert_eq!(heads("--print-ir-after", "changed"), after[1..]);
    assert_eq!(heads("--print-ir-after", "cse"), after[..1]);
    assert_eq!(
        heads("--print-ir-before", "changed"),
        ["// before quantize-weights", "// before quantize-activations"]
    );
    assert_eq!(heads("--print-ir-before", "cse"), ["// before cse"]);
    let (code, _, log) = opt(&[&[case.as_str(), "--print-ir-after", "csee"], &passes[..]].concat());
    assert_eq!(code, Some(1));
    assert!(log.contains("--print-ir-after names `csee`, which is not in the pipeline"), "{log}");
}

#[test]
fn dumps_are_numbered_and_logged() {
    let dir = TempDir::new().unwrap();
    let (case, dumps) = (file(dir.path(), MLP), dir.path().join("dumps"));
    let (code, text, log) = opt(&[
        &case,
        "--passes",
        "quantize-weights,cse",
        "--dump-ir",
        dumps.to_str().unwrap(),
        "--pass-timing",
    ]);
    assert_eq!(code, Some(0), "{log}");
    let mut names: Vec<String> =
        fs::read_dir(&dumps).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["00-import.ir", "01-quantize-weights.ir", "02-cse.ir", "pipeline.log"]);
    assert_eq!(fs::read_to_string(dumps.join("00-import.ir")).unwrap(), MLP);
    assert_eq!(fs::read_to_string(dumps.join("02-cse.ir")).unwrap(), text);
    let table = fs::read_to_string(dumps.join("pipeline.log")).unwrap();
    assert_eq!(table, log);
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["#", "pass", "patches", "before", "after", "ms"]);
    assert_eq!(rows[1][..5], ["1", "quantize-weights", "3", "9", "12"]);
    assert_eq!(rows[2][..5], ["2", "cse", "0", "12", "12"]);
}

#[test]
fn a_failed_pass_leaves_a_file_that_fails_again() {
    let dir = TempDir::new().unwrap();
    let (case, reproducer) = (file(dir.path(), OUTSIDE), dir.path().join("again.ir"));
    let reproducer = reproducer.to_str().unwrap();
    let dumps = dir.path().join("dumps");
    let dump = ["--dump-ir", dumps.to_str().unwrap()];
    let (code, text, log) = opt(&[
        &[case.as_str(), "--passes", "cse,const-fold", "--reproducer", reproducer],
        &dump[..],
    ]
    .concat());
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(
        log.starts_with("error: pass `const-fold` failed\n  cause: table: `gather`: index 7 is outside"),
        "{log}"
    );
    assert!(
        log.contains(&format!("help: `fireq opt {reproducer}` runs the pass on its graph again")),
        "{log}"
    );
    let left = fs::read_to_string(reproducer).unwrap();
    assert!(left.starts_with("// run: const-fold\n// pass `const-fold` failed: table: `gather`"), "{left}");
    assert!(left.ends_with(OUTSIDE), "{left}");
    // The file as it is: same pass, same graph, same error.
    let (code, _, again) = opt(&[reproducer, "--reproducer", reproducer]);
    assert_eq!((code, again), (Some(1), log));
    let failed = fs::read_to_string(dumps.join("02-const-fold-failed.ir")).unwrap();
    assert!(failed.starts_with("// pass `const-fold` failed\n// table: `gather`"), "{failed}");
}

#[test]
fn the_first_line_of_a_case_is_its_pipeline() {
    let dir = TempDir::new().unwrap();
    let case = file(dir.path(), &format!("// run: quantize-weights{{group=32}}; fires\n{MLP}"));
    let (code, text, log) = opt(&[&case]);
    assert_eq!(code, Some(0), "{log}");
    assert!(text.contains("{to=i4<g32:e4m3,row:f32>}"), "{text}");
    assert_eq!(opt(&[&case, "--passes", ""]).1, MLP);
}

#[test]
fn a_command_finds_the_patch() {
    let dir = TempDir::new().unwrap();
    let case = file(dir.path(), MLP);
    let passes = ["--passes", "cse,quantize-weights,quantize-activations"];
    let check = "test $(grep -c quantize {}) -lt 2";
    let (code, text, log) = opt(&[&[case.as_str(), "--bisect-command", check], &passes[..]].concat());
    assert_eq!(code, Some(0), "{log}");
    let expected = [
        "patch 2 of 5: quantize-weights: up",
        "the command fails: exit status: 1",
        "",
        "before it",
        "  %0 = input {name=\"x\"} : f32[T,64]",
        "  %4 = silu %3 : f32[T,64]",
        "  %5 = const {name=\"up\"} : bf16[64,64]",
        "- %6 = linear %0, %5 : f32[T,64]",
        "- %7 = mul %4, %6 : f32[T,64]",
    ];
    assert_eq!(text.lines().take(expected.len()).collect::<Vec<_>>(), expected, "{text}");
    assert!(text.contains("\n+ %6 = quantize %5 {to=i4<g128:e4m3,row:f32>}"), "{text}");
    let (code, text, _) = opt(&[&[case.as_str(), "--bisect"], &passes[..]].concat());
    assert_eq!((code, text.as_str()), (Some(0), "nothing is wrong after any patch\n"));
}

/// Replaces each silu by the value of `by`; says that this is exact.
struct Broken {
    by: fn(&Graph, &mut Patch, fireq_ir::ValueId) -> fireq_ir::Ref,
}

impl Pass for Broken {
    fn id(&self) -> &'static str {
        "broken"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let silus = graph.schedule().into_iter().filter(|v| *graph.op(*v) == Op::Silu);
        let patch = |v| {
            let mut patch = Patch::new("silu");
            let by = (self.by)(graph, &mut patch, v);
            patch.replace(v, by);
            patch
        };
        Ok(silus.map(patch).collect())
    }
}

fn broken(by: fn(&Graph, &mut Patch, fireq_ir::ValueId) -> fireq_ir::Ref) -> Pipeline {
    let mut pipeline = fireq_passes::pipeline("cse").unwrap();
    pipeline.0.push(Step::Pass(Box::new(Broken { by }), "broken".into()));
    pipeline.0.extend(fireq_passes::pipeline("quantize-weights").unwrap().0);
    pipeline
}

#[test]
fn numbers_find_the_patch_of_a_pass_that_is_not_what_it_says() {
    let graph = parse_and_verify(&MLP.replace("mul %3, %5", "add %3, %5")).unwrap();
    // SiLU is left out.
    let pipeline = broken(|graph, _, silu| graph.operands(silu)[0].into());
    let found = bisect(&pipeline, &graph, &Check::Numerics).unwrap().unwrap();
    assert_eq!((found.number, found.of, found.pass.as_deref()), (1, 4, Some("broken")));
    assert!(found.reason.starts_with("outputs differ by a relative error of "), "{}", found.reason);
    assert!(found.to_string().contains("\n- %3 = silu %2 : f32[T,64]\n"), "{found}");
}

#[test]
fn a_patch_that_is_refused_is_found_too() {
    let graph = parse_and_verify(MLP).unwrap();
    let pipeline = broken(|graph, _, silu| graph.users(silu)[0].into());
    let found = bisect(&pipeline, &graph, &Check::Numerics).unwrap().unwrap();
    assert_eq!((found.number, found.pass.as_deref()), (1, None));
    assert!(found.reason.contains("makes a value depend on itself"), "{}", found.reason);
}

#[test]
fn a_pass_that_panics_has_failed_and_nothing_else_has() {
    let mut graph = parse_and_verify(MLP).unwrap();
    let pipeline = broken(|_, _, _| panic!("a bug"));
    let failed = pipeline.run(&mut graph).unwrap_err();
    assert_eq!((failed.pass.as_str(), failed.source.to_string().as_str()), ("broken", "panicked: a bug"));
    assert_eq!(print_graph(&failed.before), MLP);
}

#[test]
fn an_invalid_graph_is_caught_by_the_patch_that_made_it_and_prints() {
    let mut graph = parse_and_verify(MLP).unwrap();
    // A second cache, which nothing appends to.
    let pipeline = broken(|graph, patch, silu| {
        let ty = graph.ty(silu).clone();
        let cache = patch.cache("lost".into(), ty);
        patch.add(graph, Op::Mul, &[cache, silu.into()]).unwrap()
    });
    let options = RunOptions { verify_each: true, ..RunOptions::default() };
    let Err(Stopped::Pass(failed)) = pipeline.run_observed(&mut graph, options, &mut Unobserved) else {
        panic!("an invalid graph passed")
    };
    assert!(
        failed.source.to_string().contains("a cache has one user, which appends to it"),
        "{}",
        failed.source
    );
    assert!(print_graph(&failed.after).contains("cache {name=\"lost\"}"));
}
