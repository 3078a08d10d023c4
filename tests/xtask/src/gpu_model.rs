//! Whole models of real sizes in a bundle: kernels of a shape, which runs with random weights, beside the same in `PyTorch`.

use std::path::Path;

use serde_json::Value;

use crate::run::{command, root};

/// The shape that is measured: its artifact, and the file of its configuration.
pub const SHAPE: &str = "llama3-8b";
/// The folder of its artifact.
pub const ARTIFACT: &str = "llama3-8b.fireq";
/// The file of its configuration, as `run.sh` knows it.
pub const CONFIG: &str = "llama3-8b.json";

/// Compiles the shape's kernels into the bundle, as the recipe `fireq` leaves them, and puts the configuration beside them.
pub fn add(bundle: &Path, fireq: &Path) -> Result<(), String> {
    let args = ["compile", "--shape", SHAPE, "--recipe", "fireq", "-o"];
    let output = command(&[&fireq.to_string_lossy()]).args(args).arg(bundle.join(ARTIFACT)).output();
    crate::run::succeeded(output, "the shape does not compile")?;
    let config = root().join("compiler/src/shapes").join(CONFIG);
    std::fs::copy(&config, bundle.join(CONFIG)).map_err(|e| format!("{}: {e}", config.display()))?;
    Ok(())
}

/// A table of what `fireq bench` measured, beside what `bench_model.py` did.
pub fn table(model: &Value, torch: &Value) -> Option<String> {
    let cases = model["cases"].as_array()?;
    let number = |value: &Value, scale: f64| value.as_f64().map(|number| number / scale);
    let shown = |number: Option<f64>, digits: usize| number.map_or("–".into(), |n| format!("{n:.digits$}"));
    let mut text = format!(
        "`{}` with random weights, {} bytes of GPU memory; PyTorch {} in bf16, plain, and with `torch.compile` and a CUDA graph of a decoding step:\n\n\
         | case | tokens/s | ms a step | TFLOP/s | GB/s | PyTorch tokens/s | compiled | ratio |\n|---|---|---|---|---|---|---|---|\n",
        model["model"].as_str()?,
        model["memory"]["total"],
        torch["torch"].as_str().unwrap_or("not measured"),
    );
    for case in cases {
        let found = &case["measured"];
        let seconds = number(&found["seconds"], 1.0);
        let rate = |amount: f64| seconds.map(|seconds| amount / seconds);
        let work = |of: &str| number(&found["work"][of], 1.0).unwrap_or(0.0);
        let beside = other(torch, case);
        let [eager, compiled] =
            ["eager", "compiled"].map(|how| number(&beside[how]["tokens_per_second"], 1.0));
        let ours = number(&found["tokens_per_second"], 1.0);
        let best = eager.into_iter().chain(compiled).reduce(f64::max);
        let cells = [
            title(case),
            shown(ours, 0),
            shown(number(&found["step_seconds"][0], 1e-3), 3),
            shown(rate((work("products") + work("attention")) / 1e12), 1),
            shown(rate(work("bytes") / 1e9), 0),
            shown(eager, 0),
            shown(compiled, 0),
            shown(ours.zip(best).map(|(ours, best)| ours / best), 2),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    Some(text)
}

fn title(case: &Value) -> String {
    let sequences = &case["sequences"];
    match case["kind"].as_str() {
        Some("prefill") => format!("prefill {sequences} × {}", case["tokens"]),
        _ => format!("decode {sequences} after {}", case["after"]),
    }
}

/// The same case in `PyTorch`.
fn other<'a>(torch: &'a Value, case: &Value) -> &'a Value {
    let same =
        |other: &&Value| ["kind", "sequences", "tokens", "after"].iter().all(|key| other[key] == case[key]);
    torch["cases"].as_array().and_then(|cases| cases.iter().find(same)).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cases_are_beside_those_of_torch() {
        let work = json!({ "products": 8e12, "attention": 2e12, "bytes": 3e9 });
        let model = json!({ "model": "m", "memory": { "total": 7 }, "cases": [
            { "kind": "prefill", "sequences": 16, "tokens": 1024, "measured":
                { "tokens_per_second": 100.0, "seconds": 2.0, "step_seconds": [0.5, 0.6], "work": work } },
            { "kind": "decode", "sequences": 1, "after": 2048, "does_not_fit": "too long" },
        ]});
        let torch = json!({ "torch": "2", "cases": [{ "kind": "prefill", "sequences": 16, "tokens": 1024,
            "eager": { "tokens_per_second": 50.0 }, "compiled": { "error": "no" } }] });
        let text = table(&model, &torch).unwrap();
        assert!(text.contains("| prefill 16 × 1024 | 100 | 500.000 | 5.0 | 2 | 50 | – | 2.00 |"), "{text}");
        assert!(text.contains("| decode 1 after 2048 | – | – | – | – | – | – | – |"), "{text}");
        assert_eq!(table(&Value::Null, &torch), None);
    }
}
