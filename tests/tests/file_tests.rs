//! File tests: text in, text out. A case is a file; there is no code per case.
//!
//! `tests/ir/<pass>/*.ir` begin with `// run: <pipeline>; fires` or `// run: <pipeline>; must not fire`. Every case is
//! parsed, verified, printed back, run, verified again, run to a fixpoint, and compared numerically before and after
//! within the tolerance of the pipeline's effects. What comes out is snapshotted beside the case.
//!
//! `tests/ir/plan/*.ir` say `// run: <pipeline>; plan`, and `tests/ir/llvm/*.ir` `// run: <pipeline>; llvm`: what is
//! snapshotted is the plan, verified and parsed back, or the LLVM IR of its kernels before optimization.
//!
//! `tests/ir/parse-errors/*.ir` and `verify-errors/*.ir` say `//~ message` on the line that is wrong.
//!
//! `cargo xtask bless` accepts new snapshots. `FIREQ_CASE=substring` runs the cases whose path contains it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fireq_ir::plan::{Plan, lower, parse_plan, print_plan, verify_plan};
use fireq_ir::text::{ParseError, TextError, parse_and_verify, parse_graph, print_graph};
use fireq_ir::verify::verify;
use fireq_ir::{Graph, Op, Pipeline};
use fireq_tests::difference;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ir")
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

/// Whether the environment leaves a case out.
fn wanted(path: &Path) -> bool {
    std::env::var("FIREQ_CASE").map_or(true, |filter| path.to_string_lossy().contains(&filter))
}

/// Runs `check` on every case of a folder and reports all failures.
fn for_each_case(folder: &str, check: impl Fn(&str, &Path) -> Result<(), String>) -> usize {
    let cases = files(&root().join(folder), "ir");
    assert!(!cases.is_empty(), "tests/ir/{folder} has no cases");
    let run = |path: &PathBuf| {
        check(&fs::read_to_string(path).unwrap(), path).err().map(|e| format!("{}: {e}", path.display()))
    };
    let failures: Vec<String> = cases.iter().filter(|path| wanted(path)).filter_map(run).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
    cases.len()
}

#[test]
fn passes() {
    for info in fireq_passes::PASSES {
        for_each_case(info.id, check_pass_case);
        let fires = |word: &str| {
            let first_lines =
                files(&root().join(info.id), "ir").into_iter().map(|p| fs::read_to_string(p).unwrap());
            first_lines.filter(|text| text.lines().next().unwrap_or("").ends_with(word)).count()
        };
        assert!(fires("; fires") > 0, "{}: no case in which it fires", info.id);
        assert!(fires("; must not fire") > 0, "{}: no case in which it must not fire", info.id);
    }
}

#[test]
fn plans() {
    for_each_case("plan", |text, path| {
        let plan = lowered(text, "plan")?;
        let printed = print_plan(&plan);
        verify_plan(&plan).map_err(|e| e.to_string())?;
        let parsed = parse_plan(&printed).map_err(|e| e.to_string())?;
        if parsed != plan || print_plan(&parsed) != printed {
            return Err("is another plan after parsing".into());
        }
        snapshot(path, &format!("{}\n{printed}", text.trim_end()))
    });
}

#[cfg(feature = "llvm")]
#[test]
fn llvm() {
    for_each_case("llvm", |text, path| {
        let functions =
            fireq_codegen::llvm::functions(&lowered(text, "llvm")?, fireq_codegen::llvm::Cpu::Baseline);
        snapshot(path, &format!("{}\n\n{}", text.trim_end(), functions.map_err(|e| e.to_string())?))
    });
}

/// The plan of a case after its pipeline.
fn lowered(text: &str, stage: &str) -> Result<Plan, String> {
    let (pipeline, found) = header(text)?;
    if found != stage {
        return Err(format!("the first line ends with `{found}` instead of `{stage}`"));
    }
    let mut graph = parse_and_verify(text).map_err(|e| e.to_string())?;
    let pipeline = fireq_passes::pipeline(pipeline).map_err(|e| e.to_string())?;
    pipeline.run(&mut graph).map_err(|e| e.source.to_string())?;
    Ok(lower(&graph).map_err(|e| e.to_string())?.plan)
}

/// The pipeline of a case's first line, and what is expected of it.
fn header(text: &str) -> Result<(&str, &str), String> {
    let line = text
        .lines()
        .next()
        .and_then(|l| l.strip_prefix("// run:"))
        .ok_or("the first line is not `// run: …`")?;
    line.trim()
        .rsplit_once(';')
        .map(|(run, expected)| (run, expected.trim()))
        .ok_or("the first line does not say what is expected".into())
}

#[test]
fn parse_errors() {
    for_each_case("parse-errors", |text, _| match parse_graph(text) {
        Ok(_) => Err("parses, but an error is expected".into()),
        Err(error) => check_expected(text, &error),
    });
}

#[test]
fn verify_errors() {
    for_each_case("verify-errors", |text, _| match parse_and_verify(text) {
        Ok(_) => Err("is valid, but an error is expected".into()),
        Err(TextError::Parse(error)) => Err(format!("does not parse: {error}")),
        Err(TextError::Verify(error, _)) => check_expected(text, &error),
    });
}

#[test]
fn nothing_is_left_over() {
    let ids = fireq_passes::PASSES.iter().map(|info| info.id);
    let known: BTreeSet<&str> = ids.chain(["parse-errors", "verify-errors", "plan", "llvm"]).collect();
    for folder in fs::read_dir(root()).unwrap().map(|e| e.unwrap().path()) {
        let name = folder.file_name().unwrap().to_string_lossy();
        assert!(known.contains(&*name), "{}: no pass of this name runs it", folder.display());
        let pending = files(&folder, "new");
        assert!(pending.is_empty(), "not accepted: {pending:?}; run `cargo xtask bless`");
        for snapshot in files(&folder, "snap") {
            assert!(snapshot.with_extension("ir").exists(), "{}: its case is gone", snapshot.display());
        }
    }
}

/// The error must be on the line that says `//~`, with the text that follows it.
fn check_expected(text: &str, error: &ParseError) -> Result<(), String> {
    let expected =
        text.lines().enumerate().find_map(|(n, line)| line.split_once("//~").map(|(_, m)| (n + 1, m.trim())));
    let (line, message) = expected.ok_or("no line says what is expected with `//~`")?;
    let as_expected = error.line == line && error.message.contains(message);
    if as_expected { Ok(()) } else { Err(format!("expected line {line}: {message}\nfound {error}")) }
}

fn check_pass_case(text: &str, path: &Path) -> Result<(), String> {
    let (pipeline, expectation) = header(text)?;
    let passes = fireq_passes::pipeline(pipeline).map_err(|e| e.to_string())?;
    let before = parse_and_verify(text).map_err(|e| e.to_string())?;
    check_canonical(&before)?;
    let mut after = before.clone();
    let changes = passes.run(&mut after).map_err(|e| e.source.to_string())?;
    verify(&after).map_err(|e| e.to_string())?;
    check_canonical(&after)?;
    check_interface(&before, &after)?;
    match (expectation, changes) {
        ("fires", 0) => return Err("does not fire".into()),
        ("fires", _) | ("must not fire", 0) => {}
        ("must not fire", n) => return Err(format!("fires {n} times")),
        (other, _) => return Err(format!("`{other}` is neither `fires` nor `must not fire`")),
    }
    if passes.run(&mut after.clone()).map_err(|e| e.source.to_string())? != 0 {
        return Err("a second run changes the graph again".into());
    }
    let error = check_numbers(&before, &after, &passes)?;
    snapshot(
        path,
        &format!("{}\n// {changes} changes; error {error}\n{}", text.trim_end(), print_graph(&after)),
    )
}

fn check_canonical(graph: &Graph) -> Result<(), String> {
    let text = print_graph(graph);
    let again = print_graph(&parse_graph(&text).map_err(|e| e.to_string())?);
    if text == again { Ok(()) } else { Err(format!("prints differently after parsing:\n{text}\n{again}")) }
}

/// A pass keeps the names of inputs and caches: what fills them from outside knows nothing of passes.
fn check_interface(before: &Graph, after: &Graph) -> Result<(), String> {
    let names = |graph: &Graph| -> BTreeSet<(&str, String)> {
        let ops = graph.schedule().into_iter().map(|value| graph.op(value));
        let outside = ops.filter(|op| matches!(op, Op::Input { .. } | Op::Cache { .. }));
        outside.map(|op| (op.mnemonic(), op.name().unwrap().to_string())).collect()
    };
    let (expected, found) = (names(before), names(after));
    if expected == found {
        Ok(())
    } else {
        Err(format!("inputs and caches were {expected:?}, are {found:?}"))
    }
}

/// Runs both graphs on the same random inputs. The error is given to one digit, so that snapshots stay the same.
fn check_numbers(before: &Graph, after: &Graph, passes: &Pipeline) -> Result<String, String> {
    let tolerance = passes.tolerance();
    let error = difference(before, after).map_err(|e| e.to_string())?;
    if error > tolerance {
        return Err(format!("relative error {error:.2e} is over the tolerance {tolerance:.0e}"));
    }
    Ok(format!("{error:.0e}"))
}

fn snapshot(path: &Path, content: &str) -> Result<(), String> {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(path.parent().unwrap());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let assert = || settings.bind(|| insta::assert_snapshot!(name, content));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(assert))
        .map_err(|_| "the snapshot differs: see above".into())
}
