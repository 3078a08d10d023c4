//! The twin of the demo model with outliers: what round to nearest makes of it, and what calibration does.

#![cfg(feature = "llvm")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fireq::calibrate::{CalibrationOptions, Compiled, calibration, sequences};
use fireq::compile::facts;
use fireq::import::import;
use fireq::tokens::Tokens;
use fireq_ir::Graph;
use fireq_ir::interp::Tensor;
use fireq_passes::random::Tensors;
use fireq_passes::{Runner, pipeline_with};
use fireq_tests::relative_error;
use tempfile::TempDir;
use xtask::outliers::{Factors, Kind, Request, write};

/// Tokens of a sequence.
const SEQUENCE: usize = 128;

struct Twin {
    dir: PathBuf,
    /// Text that nothing is calibrated on.
    text: Vec<Tensors>,
    _temp: TempDir,
}

impl Twin {
    fn new() -> Self {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let temp = TempDir::new().unwrap();
        let dir = temp.path().join("twin");
        let request = Request { kind: Kind::All, seed: 3, factors: Factors::default() };
        assert_eq!(write(&models.join("tinystories-3m"), &dir, &request), Ok(None));
        let text = std::fs::read_to_string(models.join("stories.txt")).unwrap();
        let parts = Tokens::load(&dir, None).unwrap().encode_parts(&text).unwrap();
        Twin { dir, text: sequences(parts.start, &parts.ids, 16, SEQUENCE), _temp: temp }
    }

    /// The model behind a pipeline, calibrated on the bundled text.
    fn behind(&self, pipeline: &str) -> (Graph, usize) {
        let mut model = import(&self.dir).unwrap();
        let options = CalibrationOptions { text: None, tokens: 2048, sequence: SEQUENCE, threads: 2 };
        let calibration = Arc::new(calibration(&self.dir, &facts(&model), options));
        let changes = pipeline_with(pipeline, &calibration).unwrap().run(&mut model.graph).unwrap();
        (model.graph, changes)
    }

    fn logits(&self, graph: &Graph) -> Vec<Tensor> {
        let mut run = Compiled::new(2).prepare(graph, SEQUENCE).unwrap();
        self.text.iter().map(|inputs| run(inputs).unwrap().swap_remove(0)).collect()
    }
}

/// The mean divergence of predictions, in nats.
fn mean_kl(exact: &[Tensor], found: &[Tensor]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for (exact, found) in exact.iter().zip(found) {
        let cols = exact.cols();
        for (exact, found) in exact.to_f32().chunks(cols).zip(found.to_f32().chunks(cols)) {
            let (p, q) = (log_softmax(exact), log_softmax(found));
            sum += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            count += 1;
        }
    }
    sum / f64::from(count)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits.iter().map(|x| f64::from(x - most));
    let log = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|x| x - log).collect()
}

#[test]
fn calibration_saves_a_model_that_round_to_nearest_ruins() {
    let twin = Twin::new();
    let exact = twin.logits(&twin.behind("none").0);
    let [rtn, fireq, unsmoothed] = [
        "rtn",
        "fireq",
        "blocks(quantize-kv{fit=clipped},quantize-weights{method=gptq},quantize-activations)",
    ]
    .map(|pipeline| mean_kl(&exact, &twin.logits(&twin.behind(pipeline).0)));
    eprintln!("mean KL: rtn {rtn:.4}, fireq {fireq:.4}, without smoothing {unsmoothed:.4}");
    assert!(rtn > 0.3, "rtn {rtn}");
    assert!(unsmoothed > 0.2, "without smoothing {unsmoothed}");
    assert!(fireq < 0.06, "fireq {fireq}");
}

#[test]
fn every_smoothing_alone_changes_no_number() {
    let twin = Twin::new();
    let exact = twin.logits(&twin.behind("none").0);
    for smoothing in ["smooth-rope-pre", "smooth-rope-post", "smooth-linears"] {
        let (graph, changes) = twin.behind(&format!("blocks({smoothing},fold-scales)"));
        let smooth = twin.logits(&graph);
        let error = exact
            .iter()
            .zip(&smooth)
            .map(|(a, b)| relative_error(&a.to_f32(), &b.to_f32()))
            .fold(0.0, f64::max);
        eprintln!("{smoothing}: {changes} blocks, relative error {error:.1e}");
        assert!(changes > 0, "{smoothing}: nothing was smoothed");
        assert!(error <= 1e-4, "{smoothing}: {error:.1e}");
    }
}
