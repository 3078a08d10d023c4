//! `fireq eval --against` finds the predictions that diverge most, and says where they stand.

#![cfg(feature = "llvm")]

mod tiny;

use std::fs;
use std::path::{Path, PathBuf};

use fireq::tokens::Tokens;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;
use tiny::fireq;

const TOKENS: usize = 100;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models")
}

/// The demo model, quantized.
struct Quantized {
    temp: TempDir,
    demo: String,
    text: String,
}

impl Quantized {
    fn new() -> Self {
        let text = |name: &str| models().join(name).to_str().unwrap().to_string();
        let quantized = Quantized {
            temp: TempDir::new().unwrap(),
            demo: text("tinystories-3m"),
            text: text("stories.txt"),
        };
        run(&["compile", &quantized.demo, "-o", &quantized.artifact(), "--recipe", "rtn"]);
        quantized
    }

    fn artifact(&self) -> String {
        self.temp.path().join("out.fireq").to_str().unwrap().into()
    }

    fn eval(&self, args: &[&str]) -> String {
        let limit = TOKENS.to_string();
        let common =
            ["eval", &self.artifact(), "--text", &self.text, "--against", &self.demo, "--limit", &limit];
        run(&[&common, args].concat())
    }

    /// Log probabilities after each of the tokens.
    fn log_probs(&self, model: &str, ids: &[u32]) -> Vec<Vec<f64>> {
        let out = self.temp.path().join("logits.safetensors");
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        run(&["logits", model, "--tokens", &ids.join(","), "-o", out.to_str().unwrap()]);
        let bytes = fs::read(out).unwrap();
        let logits = SafeTensors::deserialize(&bytes).unwrap();
        let logits = logits.tensor("logits").unwrap();
        let row = |bytes: &[u8]| {
            let row = bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
            let sum = row.clone().map(f64::exp).sum::<f64>();
            row.map(|x| x - sum.ln()).collect()
        };
        logits.data().chunks_exact(4 * logits.shape()[1]).map(row).collect()
    }
}

fn run(args: &[&str]) -> String {
    let result = fireq(args);
    assert!(result.status.success(), "{args:?}: {}", String::from_utf8_lossy(&result.stderr));
    String::from_utf8(result.stdout).unwrap()
}

#[test]
fn the_worst_tokens_are_those_of_the_logits_and_stand_where_it_says() {
    let quantized = Quantized::new();
    let text = fs::read_to_string(&quantized.text).unwrap();
    let parts = Tokens::load(&models().join("tinystories-3m"), Some(0)).unwrap().encode_parts(&text).unwrap();
    let lead = usize::from(parts.start.is_some());
    let window: Vec<u32> = parts.start.into_iter().chain(parts.ids[..TOKENS].iter().copied()).collect();
    let reference = quantized.log_probs(&quantized.demo, &window);
    let model = quantized.log_probs(&quantized.artifact(), &window);
    let kl = |(p, q): (&Vec<f64>, &Vec<f64>)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    // What follows the last token is not predicted.
    let kls = reference.iter().zip(&model).map(kl).take(window.len() - 1);
    let mut expected: Vec<(usize, f64)> = kls.enumerate().map(|(n, kl)| (n + 1 - lead, kl)).collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));

    let found: Value =
        serde_json::from_str(&quantized.eval(&["--ctx", "256", "--worst", "5", "--json"])).unwrap();
    let worst = found["against"]["worst"].as_array().unwrap();
    assert_eq!(worst.len(), 5);
    for (row, (token, kl)) in worst.iter().zip(expected) {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert_eq!(number("token"), token as f64, "{row:#}");
        assert!((number("kl") - kl).abs() < 1e-6, "{kl}: {row:#}");
        let (p, q) = (&reference[token + lead - 1], &model[token + lead - 1]);
        let actual = parts.ids[token];
        assert_eq!(row["actual"]["id"], actual);
        assert!((number("nll_rise") - (p[actual as usize] - q[actual as usize])).abs() < 1e-6, "{row:#}");
        for (key, log_probs) in [("reference", p), ("model", q)] {
            let likeliest = log_probs[row[key]["id"].as_u64().unwrap() as usize];
            assert!(log_probs.iter().all(|other| *other <= likeliest), "{row:#}");
            assert!((row[key]["probability"].as_f64().unwrap() - likeliest.exp()).abs() < 1e-6);
        }
        let (line, column) = (number("line") as usize, number("column") as usize);
        let rest: String = text.split('\n').nth(line - 1).unwrap().chars().skip(column - 1).collect();
        let said = row["actual"]["text"].as_str().unwrap();
        assert!((rest + "\n").starts_with(said), "{row:#}");
        assert!(text[..parts.offsets[token]].ends_with(row["context"].as_str().unwrap()), "{row:#}");
    }
}

#[test]
fn as_many_worst_tokens_are_listed_as_asked_for() {
    let quantized = Quantized::new();
    let lines = |args: &[&str]| quantized.eval(args).lines().count();
    let without = ["--worst", "0"];
    assert_eq!(lines(&without), 4);
    assert_eq!(lines(&["--worst", "3"]), 4 + 2 + 3);
    assert_eq!(lines(&[]), 4 + 2 + 10);
    let json: Value = serde_json::from_str(&quantized.eval(&["--worst", "0", "--json"])).unwrap();
    assert_eq!(json["against"]["worst"], Value::Array(vec![]));
    assert!(quantized.eval(&["--worst", "3"]).starts_with(&quantized.eval(&without)));
    assert_eq!(quantized.eval(&["--ctx", "16"]), quantized.eval(&["--ctx", "16"]), "the same every time");
}
