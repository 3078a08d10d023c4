//! What fuzzing checks: nothing that is read from a file makes a reader panic, allocate what a file merely claims, or look
//! outside the folder that it was given; and what reads and is written again is the same.
//!
//! Compiled twice, here and as the library of `tests/fuzz`: names only what that package depends on.

mod artifact;
mod checkpoint;
mod config;
mod journal;
mod measurements;
mod packed;
mod scratch;
mod texts;
mod tokenizer;

use std::error::Error;

pub use artifact::{artifact, program};
pub use checkpoint::checkpoint;
pub use config::config;
pub use journal::journal;
pub use measurements::measurements;
pub use packed::packed;
pub use texts::{pipeline, plan, recipe, text_ir};
pub use tokenizer::tokenizer;

/// A target: its name, which is that of its corpus, and its check.
pub type Target = (&'static str, fn(&[u8]));

/// All that is fuzzed.
pub const TARGETS: [Target; 12] = [
    ("text_ir", |bytes| text(bytes, text_ir)),
    ("pipeline", |bytes| text(bytes, pipeline)),
    ("recipe", |bytes| text(bytes, recipe)),
    ("plan", |bytes| text(bytes, plan)),
    ("checkpoint", checkpoint),
    ("packed", packed),
    ("config", config),
    ("artifact", artifact),
    ("program", program),
    ("measurements", |bytes| text(bytes, measurements)),
    ("tokenizer", tokenizer),
    ("journal", journal),
];

/// Runs the check of the target `name`.
///
/// # Panics
///
/// When the check fails, and when there is no such target.
pub fn check(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    target.unwrap_or_else(|| panic!("there is no target `{name}`")).1(bytes);
}

/// What is not UTF-8 is refused before a parser of text sees it.
fn text(bytes: &[u8], check: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
    }
}

/// Several files as one input: this byte, which no text file holds, ends each but the last.
const END: u8 = 0x1e;

/// The first `N` files of an input; those that are not there are empty.
fn files<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = bytes.splitn(N, |byte| *byte == END);
    [(); N].map(|()| parts.next().unwrap_or_default())
}

/// Errors are printed too: their places are computed from what was read.
fn show(error: &dyn Error) {
    assert!(!error.to_string().is_empty(), "an error says something");
    let mut cause = error.source();
    while let Some(error) = cause {
        assert!(!error.to_string().is_empty(), "a cause says something");
        cause = error.source();
    }
}
