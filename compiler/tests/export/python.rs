//! What transformers and compressed-tensors make of checkpoints, where they are installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::DEMO;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check_export.py");
const PACKAGES: &str = "import torch, transformers, compressed_tensors, safetensors, numpy";

/// The Python that `FIREQ_PYTHON` names, or the first on the path, if it has the packages.
fn python() -> Option<String> {
    let python = env::var("FIREQ_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", PACKAGES]).stderr(Stdio::null()).status();
    has.is_ok_and(|status| status.success()).then_some(python)
}

#[test]
fn other_engines_compute_what_fireq_does() {
    let Some(python) = python() else {
        eprintln!(
            "skipped: exports in transformers: no Python with torch, transformers, compressed-tensors (FIREQ_PYTHON)"
        );
        return;
    };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let mut models: Vec<PathBuf> =
        fixtures.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    models.sort();
    let mut command = Command::new(python);
    let result =
        command.arg(SCRIPT).arg(env!("CARGO_BIN_EXE_fireq")).arg(DEMO).args(models).output().unwrap();
    let (said, log) = (String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    println!("{said}");
    assert!(result.status.success(), "{said}{log}");
}
