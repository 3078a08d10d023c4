//! Recipes on the command line: printed, read from files, refused with the place of what is wrong.

mod tiny;

use std::fs;
use std::path::PathBuf;

use fireq_passes::RECIPES;
use serde_json::Value;
use tempfile::TempDir;
use tiny::fireq;

/// A directory with a tiny model and a recipe.
struct Case {
    dir: TempDir,
}

impl Case {
    fn new(recipe: &[u8]) -> Self {
        let dir = TempDir::new().unwrap();
        tiny::write(dir.path(), &tiny::config(), &tiny::tensors());
        fs::write(dir.path().join("my.toml"), recipe).unwrap();
        Case { dir }
    }

    fn recipe(&self) -> PathBuf {
        self.dir.path().join("my.toml")
    }

    /// Exit code, stdout and stderr of a compilation with this recipe and these options.
    fn compile(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let (model, recipe) = (self.dir.path().to_str().unwrap(), self.recipe());
        let args = [&["compile", model, "--recipe", recipe.to_str().unwrap()][..], more].concat();
        let output = fireq(&args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn recipes_are_printed_as_they_are_written() {
    for built_in in &RECIPES {
        let result = fireq(&["compile", "--print-recipe", "--recipe", built_in.name]);
        assert_eq!(String::from_utf8(result.stdout).unwrap(), built_in.text);
    }
    assert_eq!(String::from_utf8(fireq(&["compile", "--print-recipe"]).stdout).unwrap(), RECIPES[1].text);
}

#[test]
fn a_pipeline_has_no_file() {
    let result = fireq(&["compile", "--print-recipe", "--recipe", "fuse"]);
    let log = String::from_utf8(result.stderr).unwrap();
    assert!(log.starts_with("error: `fuse` is a pipeline without a recipe: merge-qkv,"), "{log}");
    assert!(log.ends_with("help: these have a file: none, rtn, fireq, paper\n"), "{log}");
}

#[test]
fn what_a_file_says_is_what_the_graph_becomes() {
    let recipe = "[activations]\nquantize = false\n\
                  [[override]]\ntensors = \"*.0.mlp.down_proj.weight\"\nkeep = true\n\
                  [[override]]\ntensors = \"*.down_proj.weight|*.up_proj.weight\"\ngroup = 32\n\
                  [[override]]\ntensors = \"k.0\"\nskip = [\"quantize-kv\"]\n";
    let (code, graph, log) = Case::new(recipe.as_bytes()).compile(&["--stop-after", "1000"]);
    assert_eq!(code, Some(0), "{log}");
    let pass = |name: &str| graph.lines().filter(|line| line.contains(name)).count();
    assert!(graph.contains("name=\"k.0\"} : f32["), "{graph}");
    assert!(pass("to=i4<g32:e4m3,row:f32>") > 0 && pass("to=i4<g128:e4m3,row:f32>") > 0, "{graph}");
    assert_eq!(pass("to=e4m3<row:f32>"), 0, "{graph}");
    let (_, down) = graph.split_once("0.mlp.down_proj.weight").unwrap();
    let next = down.lines().nth(1).unwrap();
    assert!(next.contains(" = linear "), "kept as it is, but followed by {next}");
}

#[test]
fn reports_name_the_file_and_its_pipeline() {
    let case = Case::new(b"[kv]\nfit = \"clipped\"\n");
    let (code, json, log) = case.compile(&["--dry-run", "--json"]);
    assert_eq!(code, Some(0), "{log}");
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["recipe"], case.recipe().to_str().unwrap());
    assert_eq!(report["pipeline"], "quantize-weights,quantize-activations,quantize-kv{fit=clipped}");
}

#[test]
fn mistakes_are_shown_in_place() {
    let (code, _, log) = Case::new(b"[weights]\n\ngruop = 64\n").compile(&["--dry-run"]);
    assert_eq!(code, Some(1));
    let expected = [
        "  cause: unknown field `gruop`, expected one of `method`, `catch-up`, `group`, `fit`, `codes`, `keep`, `head`",
        "          --> line 3, column 1",
        "           |",
        "         3 | gruop = 64",
        "           | ^^^^^",
        "           = help: did you mean `group`?",
        "  help: `fireq compile --print-recipe` prints one with every key",
    ];
    let (first, rest) = log.trim_end().split_once('\n').unwrap();
    assert!(first.ends_with("my.toml` is not a valid recipe"), "{first}");
    assert_eq!(rest, expected.join("\n"));
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let case = Case::new(b"\xff\xfe");
    let (code, _, log) = case.compile(&["--dry-run"]);
    assert_eq!(code, Some(1));
    assert!(
        log.contains("my.toml` cannot be read\n  cause: stream did not contain valid UTF-8\n  help: "),
        "{log}"
    );
    fs::remove_file(case.recipe()).unwrap();
    let (code, _, log) = case.compile(&["--dry-run"]);
    assert_eq!(code, Some(1));
    assert!(log.contains("my.toml` cannot be read\n  cause: No such file"), "{log}");
}
