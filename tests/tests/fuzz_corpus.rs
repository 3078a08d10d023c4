//! The corpus of `tests/fuzz` through the checks that fuzzing makes, without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use fireq_tests::fuzz;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Runs `check` on every text that a target starts from; the text is printed, so that a failure shows it.
fn replay(target: &str, check: fn(&str)) {
    let dir = root().join("corpus").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", dir.display());
    for path in paths {
        println!("{}", path.display());
        // Targets drop what is not UTF-8.
        if let Ok(text) = std::str::from_utf8(&fs::read(&path).unwrap()) {
            check(text);
        }
    }
}

#[test]
fn graphs() {
    replay("text_ir", fuzz::text_ir);
}

#[test]
fn pipelines() {
    replay("pipeline", fuzz::pipeline);
}

#[test]
fn recipes() {
    replay("recipe", fuzz::recipe);
}

#[test]
fn plans() {
    replay("plan", fuzz::plan);
}

#[test]
fn every_operation_and_pass_is_in_the_dictionary() {
    let tokens = fs::read_to_string(root().join("tokens.dict")).unwrap();
    let names = fireq_ir::OPS.iter().map(|op| op.mnemonic).chain(fireq_passes::PASSES.iter().map(|p| p.id));
    let missing: Vec<&str> = names.filter(|name| !tokens.contains(&format!("\"{name}\""))).collect();
    assert!(missing.is_empty(), "tests/fuzz/tokens.dict lacks {missing:?}");
}
