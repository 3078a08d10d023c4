//! The corpus of `tests/fuzz` through the checks that fuzzing makes, without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fireq_tests::fuzz;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn listed(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Checks every input that a target starts from; its path is printed, so that a failure shows it.
fn replay(target: &str) {
    let paths = listed(&root().join("corpus").join(target));
    assert!(!paths.is_empty(), "the corpus of {target} is empty");
    for path in paths {
        println!("{}", path.display());
        fuzz::check(target, &fs::read(&path).unwrap());
    }
}

macro_rules! replayed {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

replayed!(text_ir pipeline recipe plan checkpoint packed config artifact program measurements tokenizer journal);

#[test]
fn every_target_has_a_program_and_a_corpus_and_is_replayed() {
    let names = |dir: &str| -> BTreeSet<String> {
        let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        listed(&root().join(dir)).iter().map(name).collect()
    };
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_string()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(REPLAYED.iter().map(|name| (*name).to_string()).collect::<BTreeSet<_>>(), targets);
}

#[test]
fn corpora_stay_small() {
    let mut all = 0;
    for (target, _) in fuzz::TARGETS {
        let files = listed(&root().join("corpus").join(target));
        let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(files.len() <= 80 && bytes <= 150_000, "{target}: {} files, {bytes} bytes", files.len());
        all += bytes;
    }
    assert!(all <= 1_500_000, "{all} bytes");
}

#[test]
fn every_operation_and_pass_is_in_the_dictionary() {
    let tokens = fs::read_to_string(root().join("tokens.dict")).unwrap();
    let names = fireq_ir::OPS.iter().map(|op| op.mnemonic).chain(fireq_passes::PASSES.iter().map(|p| p.id));
    let missing: Vec<&str> = names.filter(|name| !tokens.contains(&format!("\"{name}\""))).collect();
    assert!(missing.is_empty(), "tests/fuzz/tokens.dict lacks {missing:?}");
}
