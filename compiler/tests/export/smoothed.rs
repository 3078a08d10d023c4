//! Smoothing becomes part of weights and norms, and what cannot is left out or refused.

use fireq::numerics::relative_error;

use super::{Place, refuse, succeed};

/// Scales that keys get behind rope, and no other smoothing.
const BEHIND: &str = "smooth-rope-post{form=paper},quantize-weights";

fn words(options: &[String; 4]) -> [&str; 4] {
    options.each_ref().map(String::as_str)
}

#[test]
fn folded_scales_are_in_the_checkpoint() {
    let place = Place::new();
    let (model, data) = place.calibrated();
    let passes =
        "smooth-rope-pre{form=paper},fold-scales,smooth-linears{form=paper},fold-scales,quantize-weights";
    let artifact = place.compile(&model, "out.fireq", passes, &words(&data));
    let wanted = place.logits(&artifact);
    let plain = place.compile(&model, "plain.fireq", "quantize-weights", &[]);
    assert!(relative_error(&wanted, &place.logits(&plain)) > 1e-3, "smoothing changes what is rounded");
    let quantized = [&["--passes", passes][..], &words(&data)].concat();
    for (source, args) in [(&artifact, &[][..]), (&model, &quantized[..])] {
        place.export(source, "safetensors-bf16", "numbers", &[&["--dtype", "f32"], args].concat());
        let error = relative_error(&wanted, &place.logits(&place.text("numbers")));
        assert!(error < 2e-6, "{source}: {error}");
    }
}

#[test]
fn scales_behind_rope_are_refused_and_recipes_leave_them_out() {
    let place = Place::new();
    let (model, data) = place.calibrated();
    let artifact = place.compile(&model, "out.fireq", BEHIND, &words(&data));
    let out = place.text("out");
    let expected = "error: keys have scales behind rope, which checkpoints have no place for: caches k.0, k.1\n  \
                    help: `fireq export MODEL_DIR --recipe …` leaves smooth-rope-post out of the recipe, which is exact; \
                    with --passes, leave it out there\n";
    for format in ["compressed-tensors", "safetensors-bf16"] {
        assert_eq!(refuse(&["export", &artifact, "--format", format, "-o", &out]), expected);
        let args = ["export", &model, "--format", format, "-o", &out, "--passes", BEHIND];
        assert_eq!(refuse(&[&args[..], &words(&data)].concat()), expected);
    }
    assert!(!place.path("out").exists());
    let args = ["export", &model, "--format", "compressed-tensors", "-o", &out, "--recipe", "paper"];
    succeed(&[&args[..], &words(&data)].concat());
    let recipe = place.json("out/fireq-export.json")["recipe"].as_str().unwrap().to_string();
    let expected = "blocks(smooth-rope-pre{form=paper},fold-scales,smooth-linears{form=paper},fold-scales,\
                    quantize-weights{method=paper},quantize-activations)";
    assert_eq!(recipe, expected);
}

#[test]
fn a_calibrated_recipe_is_exported_and_leaves_nothing_beside() {
    let place = Place::new();
    let (model, data) = place.calibrated();
    let args = [&["--recipe", "fireq"][..], &words(&data)].concat();
    let said = place.export(&model, "compressed-tensors", "out", &args);
    assert!(said.contains("14 INT4 for bf16 inputs") && !said.contains("left out"), "{said}");
    let recipe = place.json("out/fireq-export.json")["recipe"].as_str().unwrap().to_string();
    assert!(recipe.contains("gptq") && !recipe.contains("rope-post") && !recipe.contains("kv"), "{recipe}");
    let mut left: Vec<_> =
        std::fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["model", "out", "text"]);
}

#[test]
fn scales_that_nothing_folded_are_named() {
    let place = Place::new();
    let (model, data) = place.calibrated();
    let out = place.text("out");
    let passes = "smooth-linears{form=paper},quantize-weights";
    let args = ["export", &model, "--format", "safetensors-bf16", "-o", &out, "--passes", passes];
    let said = refuse(&[&args[..], &words(&data)].concat());
    assert!(said.starts_with("error: the graph has scales that are part of no weight: "), "{said}");
    assert!(said.contains("help: fold-scales in the pipeline"), "{said}");
}
