//! `cargo xtask attention-accuracy`: what rounding costs outputs of attention.

use crate::run::{command, run};

/// Runs the test that holds the errors to bounds, and shows its table.
pub fn attention_accuracy() -> Result<(), String> {
    let test = ["cargo", "test", "--quiet", "-p", "fireq-tests", "--test", "attention_accuracy"];
    run(&mut command(&[&test[..], &["--", "--nocapture"]].concat()))
}
