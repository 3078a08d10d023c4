//! Artifacts of the schema version before this one are read, and compute what they computed when they were written.
//!
//! `artifacts/schema-3` is for any x86-64 machine with Linux: one block of Qwen3's kind (hidden size 128, vocabulary 64) with
//! random weights, INT4 in groups of 128 and of 64, one kept in bf16, its head in E4M3. `artifacts/schema-3.logits.safetensors` is what
//! `fireq logits --tokens 3,1,4,1,5,9,2,6,5,3,5,8` wrote for it then.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod tiny;

use std::fs;
use std::path::{Path, PathBuf};

use fireq::numerics::relative_error;
use fireq_ir::artifact::{OLDEST, SCHEMA};
use fireq_runtime::{Artifact, Limits, Select, Session};
use safetensors::SafeTensors;
use tiny::fireq;

const TOKENS: [u32; 12] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];

fn path(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/artifacts/schema-{OLDEST}{what}"))
}

/// What was written with it: a row for each token.
fn recorded() -> Vec<f32> {
    let bytes = fs::read(path(".logits.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.tensor("logits").unwrap().data().chunks_exact(4);
    floats.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn session() -> Session {
    let artifact = Artifact::open(&path("")).unwrap();
    assert_eq!((artifact.manifest.schema, OLDEST + 1), (OLDEST, SCHEMA));
    Session::open(&artifact, Limits { tokens: 16, context: 16, threads: 2 }).unwrap()
}

#[test]
fn an_artifact_of_the_version_before_gives_the_logits_that_it_gave() {
    let error = relative_error(&session().forward(&TOKENS, Select::All).unwrap(), &recorded());
    assert!(error < 1e-6, "{error}");
}

#[test]
fn token_by_token_too() {
    let (mut session, recorded) = (session(), recorded());
    for (token, row) in TOKENS.iter().zip(recorded.chunks_exact(recorded.len() / TOKENS.len())) {
        let error = relative_error(&session.forward(&[*token], Select::All).unwrap(), row);
        assert!(error < 1e-5, "{error}");
    }
}

#[test]
fn inspect_says_which_version_it_is() {
    let shown = fireq(&["inspect", path("").to_str().unwrap()]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains(&format!("\n  schema    {OLDEST}, of an earlier fireq\n")), "{text}");
}

#[test]
fn the_changelog_says_what_a_version_changed() {
    assert!(include_str!("../CHANGELOG.md").contains(&format!("- Schema {SCHEMA}: ")));
}
