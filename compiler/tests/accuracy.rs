//! What recipes cost the demo model, on stories that nothing is calibrated on, in windows of the default length.

#![cfg(feature = "llvm")]

mod tiny;

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tiny::fireq;

/// The relative rise of perplexity, and the mean KL divergence in nats.
fn cost(recipe: &str) -> (f64, f64) {
    let temp = TempDir::new().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models");
    let [demo, text] = ["tinystories-3m", "stories.txt"].map(|name| models.join(name));
    let artifact = temp.path().join("out.fireq");
    let [demo, text, artifact] = [&demo, &text, &artifact].map(|path| path.to_str().unwrap());
    let run = |args: &[&str]| {
        let found = fireq(args);
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        found.stdout
    };
    run(&["compile", demo, "-o", artifact, "--recipe", recipe]);
    let found = run(&["eval", artifact, "--text", text, "--against", demo, "--json"]);
    let found: Value = serde_json::from_slice(&found).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let rise = number(&found["perplexity"]) / number(&found["against"]["perplexity"]) - 1.0;
    (rise, number(&found["against"]["mean_kl"]))
}

#[test]
fn recipe_fireq_costs_at_most_a_third_of_round_to_nearest() {
    let ((rtn, rtn_kl), (fireq, fireq_kl)) = (cost("rtn"), cost("fireq"));
    eprintln!("rtn +{:.2} %, KL {rtn_kl:.4}; fireq {:+.2} %, KL {fireq_kl:.4}", rtn * 100.0, fireq * 100.0);
    assert!(fireq <= 0.35 * rtn, "rtn {rtn}, fireq {fireq}");
    assert!(fireq <= 0.013, "fireq {fireq}");
    assert!(fireq_kl <= 0.55 * rtn_kl, "rtn {rtn_kl}, fireq {fireq_kl}");
}
