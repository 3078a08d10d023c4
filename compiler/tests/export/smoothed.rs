//! Smoothing becomes part of weights and norms, and what cannot is left out or refused.

use fireq::numerics::relative_error;

use super::{DEMO, Place, refuse, succeed};

const FEW: [&str; 2] = ["--calib-tokens", "256"];

/// Scales that keys get behind rope, and no other pass.
const BEHIND: &str = "smooth-rope-post{form=paper},quantize-weights";

#[test]
fn folded_scales_are_in_the_checkpoint() {
    let place = Place::new();
    let passes = "smooth-linears{form=paper},fold-scales,quantize-weights";
    let artifact = place.compile(DEMO, "out.fireq", passes, &FEW);
    let wanted = place.logits(&artifact);
    let plain = place.compile(DEMO, "plain.fireq", "quantize-weights", &[]);
    assert!(relative_error(&wanted, &place.logits(&plain)) > 1e-3, "smoothing changes what is rounded");
    for source in [artifact.as_str(), DEMO] {
        let quantized: &[&str] = if source == DEMO { &["--passes", passes, FEW[0], FEW[1]] } else { &[] };
        let args = [&["--dtype", "f32"], quantized].concat();
        place.export(source, "safetensors-bf16", "numbers", &args);
        let error = relative_error(&wanted, &place.logits(&place.text("numbers")));
        assert!(error < 2e-6, "{source}: {error}");
    }
}

#[test]
fn scales_behind_rope_are_refused_and_recipes_leave_them_out() {
    let place = Place::new();
    let artifact = place.compile(DEMO, "out.fireq", BEHIND, &FEW);
    let out = place.text("out");
    let expected = "error: keys have scales behind rope, which checkpoints have no place for: caches k.0, k.1, k.2, k.3\n  \
                    help: `fireq export MODEL_DIR --recipe …` leaves smooth-rope-post out of the recipe, which is exact; \
                    with --passes, leave it out there\n";
    for format in ["compressed-tensors", "safetensors-bf16"] {
        assert_eq!(refuse(&["export", &artifact, "--format", format, "-o", &out]), expected);
        let args = ["export", DEMO, "--format", format, "-o", &out, "--passes", BEHIND];
        assert_eq!(refuse(&[&args[..], &FEW].concat()), expected);
    }
    assert!(!place.path("out").exists());
    let args = ["export", DEMO, "--format", "compressed-tensors", "-o", &out, "--recipe", "paper"];
    succeed(&[&args[..], &FEW].concat());
    let recipe = place.json("out/fireq-export.json")["recipe"].as_str().unwrap().to_string();
    let expected = "blocks(smooth-rope-pre{form=paper},fold-scales,smooth-linears{form=paper},fold-scales,\
                    quantize-weights{method=paper},quantize-activations)";
    assert_eq!(recipe, expected);
}

#[test]
fn a_calibrated_recipe_is_exported_and_leaves_nothing_beside() {
    let place = Place::new();
    let said =
        place.export(DEMO, "compressed-tensors", "out", &["--recipe", "fireq", "--calib-tokens", "256"]);
    assert!(said.contains("28 INT4 for FP8 inputs") && !said.contains("left out"), "{said}");
    let recipe = place.json("out/fireq-export.json")["recipe"].as_str().unwrap().to_string();
    assert!(recipe.contains("gptq") && !recipe.contains("rope-post") && !recipe.contains("kv"), "{recipe}");
    let left: Vec<_> = std::fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["out"]);
}

#[test]
fn scales_that_nothing_folded_are_named() {
    let place = Place::new();
    let out = place.text("out");
    let passes = "smooth-linears{form=paper},quantize-weights";
    let args = ["export", DEMO, "--format", "safetensors-bf16", "-o", &out, "--passes", passes];
    let said = refuse(&[&args[..], &FEW].concat());
    assert!(said.starts_with("error: the graph has scales that are part of no weight: "), "{said}");
    assert!(said.contains("help: fold-scales in the pipeline"), "{said}");
}
