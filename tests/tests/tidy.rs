//! The laws that no compiler checks: where things are, how long files get, what has a test folder.

use std::fs;
use std::path::{Path, PathBuf};

/// What may stand at the top of the repository without a leading dot.
const TOP: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "codegen",
    "compiler",
    "kernels",
    "passes",
    "runtime",
    "target",
    "tests",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file below `dir` with this ending, build output left out.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&entry, extension));
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

fn says_why(path: &Path) -> bool {
    fs::read_to_string(path).unwrap().lines().take(5).any(|l| l.contains("Longer than"))
}

#[test]
fn files_fit_in_a_head() {
    let limit = |path: &Path| if path.starts_with(root().join("passes/src")) { 200 } else { 300 };
    let all = files(&root(), "rs");
    assert!(all.len() > 50, "the walk finds the sources");
    let long: Vec<_> =
        all.iter().filter(|p| lines(p) > limit(p) && !says_why(p)).map(|p| (lines(p), p)).collect();
    assert!(long.is_empty(), "too long, and no line at the top says `Longer than … because`: {long:#?}");
}

#[test]
fn names_say_what_is_inside() {
    let vague = |path: &&PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        ["utils", "util", "common", "helpers", "helper", "misc"].contains(&name.as_str())
    };
    assert_eq!(files(&root(), "rs").iter().filter(vague).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn the_top_level_is_as_agreed() {
    let names = fs::read_dir(root()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let extra: Vec<String> = names.filter(|n| !n.starts_with('.') && !TOP.contains(&n.as_str())).collect();
    assert!(extra.is_empty(), "not agreed: {extra:?}");
}

#[test]
fn only_the_graph_names_petgraph() {
    let names_it = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.contains("petgraph::")
    };
    let here = root().join("tests/tests/tidy.rs");
    let found: Vec<PathBuf> =
        files(&root(), "rs").iter().filter(names_it).filter(|p| **p != here).cloned().collect();
    assert_eq!(found, [root().join("compiler/ir/src/graph.rs")]);
}

#[test]
fn a_pass_is_a_file_is_an_id_is_a_folder() {
    for info in fireq_passes::PASSES {
        let file = root().join("passes/src").join(format!("{}.rs", info.id.replace('-', "_")));
        assert!(file.exists(), "{} has no file of its name", info.id);
        assert!(root().join("tests/ir").join(info.id).is_dir(), "{} has no folder of cases", info.id);
        assert!(fs::read_to_string(&file).unwrap().contains("//! ```"), "{} has no example", info.id);
    }
}
