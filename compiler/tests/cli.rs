//! Commands on text IR, and what options refuse.

mod tiny;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tiny::fireq;

const LINEAR: &str = r#"graph "one" {
  %0 = input {name="x"} : f32[T,256]
  %1 = const {name="w"} : bf16[64,256]
  %2 = linear %0, %1 : f32[T,64]
  return %2
}
"#;

/// Runs the binary with text on stdin; gives exit code, stdout and stderr.
fn piped(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    let piped = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn without_passes_text_comes_back_as_it_was() {
    assert_eq!(piped(&["opt", "-"], LINEAR), (Some(0), LINEAR.to_string(), String::new()));
}

#[test]
fn passes_rewrite_text_and_their_numbers_are_checked() {
    let args =
        ["opt", "-", "--passes", "quantize-weights{group=64},quantize-activations", "--verify-numerics"];
    let (code, text, log) = piped(&args, LINEAR);
    assert_eq!(code, Some(0), "{log}");
    assert!(text.contains("quantize %2 {to=i4<g64:e4m3,row:f32>}"), "{text}");
    assert!(log.starts_with("numerics: quantize-weights: output 0: max "), "{log}");
}

#[test]
fn shapes_that_text_claims_are_not_allocated() {
    let huge = LINEAR.replace("256", "99999999999");
    let (code, text, log) = piped(&["opt", "-", "--passes", "quantize-weights", "--verify-numerics"], &huge);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(log.contains("f32[T,99999999999] is too large to be run on random data"), "{log}");
}

#[test]
fn errors_in_text_are_shown_in_place() {
    let broken = LINEAR.replace("linear %0, %1", "linear %0, %7");
    let (code, text, log) = piped(&["opt", "-"], &broken);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    let expected = [
        "error: stdin is not valid text IR",
        "  cause: %7 is not defined before this line",
        "          --> line 4, column 19",
        "           |",
        "         4 |   %2 = linear %0, %7 : f32[T,64]",
        "           |                   ^^",
        "  help: `fireq inspect MODEL_DIR --ir` prints a graph in the form that is read",
    ];
    assert_eq!(log.trim_end(), expected.join("\n"));
}

#[test]
fn wrong_types_in_text_are_shown_in_place() {
    let broken = LINEAR.replace(": f32[T,64]", ": f32[T,65]");
    let (code, text, log) = piped(&["opt", "-"], &broken);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    let expected = [
        "error: stdin is not valid text IR",
        "  cause: has type f32[T,64], not f32[T,65]",
        "          --> line 4, column 3",
        "           |",
        "         4 |   %2 = linear %0, %1 : f32[T,65]",
        "           |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        "  help: `fireq inspect MODEL_DIR --ir` prints a graph in the form that is read",
    ];
    assert_eq!(log.trim_end(), expected.join("\n"));
}

#[test]
fn unknown_passes_and_recipes_name_the_nearest() {
    let (code, _, log) = piped(&["opt", "-", "--passes", "quantise-kv"], LINEAR);
    assert_eq!(code, Some(1));
    assert_eq!(
        log.trim_end(),
        "error: unknown pass `quantise-kv`; did you mean `quantize-kv`?\n  \
         help: `fireq passes` lists the passes and their options"
    );
    let result = fireq(&["compile", "nowhere", "-o", "x.fireq", "--recipe", "rnt"]);
    assert_eq!(
        String::from_utf8_lossy(&result.stderr).trim_end(),
        "error: unknown recipe `rnt`; did you mean `rtn`?\n  help: --passes runs any pipeline instead of a recipe"
    );
}

#[test]
fn targets_and_devices_that_are_not_there_are_refused() {
    let result = fireq(&["compile", "nowhere", "-o", "x.fireq", "--target", "cpu,sm_80"]);
    let log = String::from_utf8_lossy(&result.stderr).into_owned();
    assert_eq!(result.status.code(), Some(1));
    assert_eq!(
        log.trim_end(),
        "error: there is no target `sm_80`\n  help: targets are cpu and sm_90a; cpu,sm_90a is both"
    );
    let result = fireq(&["run", "nowhere", "--prompt", "x", "--device", "tpu"]);
    let log = String::from_utf8_lossy(&result.stderr).into_owned();
    assert_eq!(result.status.code(), Some(2));
    assert!(log.contains("invalid value 'tpu'") && log.contains("[possible values: cpu, cuda]"), "{log}");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/tinystories-3m");
    let result = fireq(&["run", model, "--prompt", "x", "--device", "cuda"]);
    let log = String::from_utf8_lossy(&result.stderr).into_owned();
    assert_eq!(result.status.code(), Some(1));
    assert!(log.contains("is a model directory, which is executed on CPUs"), "{log}");
    assert!(log.contains("help: compile it with --target sm_90a and execute the artifact"), "{log}");
}

#[test]
fn json_is_one_object_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), &tiny::config(), &tiny::tensors());
    let model = dir.path().to_str().unwrap();
    let compile = ["compile", model, "--dry-run", "--json"];
    let bench = ["bench", model, "--interpret", "--prefill", "2", "--decode", "2", "--repeat", "1", "--json"];
    for args in
        [&["passes", "--json"][..], &["doctor", "--json"], &["inspect", model, "--json"], &compile, &bench]
    {
        let result = fireq(args);
        assert!(result.status.success(), "{args:?}: {}", String::from_utf8_lossy(&result.stderr));
        assert!(serde_json::from_slice::<Value>(&result.stdout).unwrap().is_object(), "{args:?}");
    }
}

#[test]
fn a_path_that_is_nothing_is_refused() {
    let result = fireq(&["inspect", "nowhere"]);
    assert_eq!(result.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&result.stderr).trim_end(),
        "error: `nowhere` does not exist\n  \
         help: give a model directory (config.json and *.safetensors) or an artifact of `fireq compile`"
    );
}
