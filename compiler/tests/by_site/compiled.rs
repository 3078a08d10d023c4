//! The same as compiled code, beside the artifacts that have one site alone.

use super::*;

impl Model {
    fn compiled(&self, args: &[&str]) -> Value {
        let text = self.path("text");
        let mut line = self.args(&text, &[args, &["--json"]].concat());
        line.retain(|arg| *arg != "--interpret");
        serde_json::from_str(&run(&line)).unwrap()
    }

    /// Mean KL divergence and perplexity of the artifact of a pipeline.
    fn against(&self, passes: &str) -> (f64, f64) {
        let (out, text, dir) = (self.path("out.fireq"), self.path("text"), self.dir.to_str().unwrap());
        run(&["compile", dir, "-o", &out, "--passes", passes]);
        let line = ["eval", &out, "--text", &text, "--ctx", "32", "--against", dir, "--json"];
        let found: Value = serde_json::from_str(&run(&line)).unwrap();
        (found["against"]["mean_kl"].as_f64().unwrap(), found["perplexity"].as_f64().unwrap())
    }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs())
}

#[test]
fn compiled_code_and_the_interpreter_agree() {
    let model = tiny();
    let (interpreted, compiled) = (model.by_site(&[]), model.compiled(&[]));
    for pass in ["quantize-weights", "quantize-activations", "quantize-kv"] {
        for (a, b) in of_pass(&interpreted, pass).iter().zip(of_pass(&compiled, pass)) {
            let differs = (a["mean_kl"].as_f64().unwrap() - b["mean_kl"].as_f64().unwrap()).abs();
            assert!(a["site"] == b["site"] && differs < 1e-5, "{a:#}\n{b:#}");
        }
    }
}

#[test]
fn a_site_alone_is_the_artifact_that_has_it_alone() {
    let mut config = tiny::config();
    config["num_hidden_layers"] = 1.into();
    let mut tensors = tiny::tensors();
    tensors.retain(|name, _| !name.contains("layers.1."));
    let model = Model::new(&config, &tensors);
    let found = model.compiled(&[]);
    let cache = &of_pass(&found, "quantize-kv")[0];
    let (kl, perplexity) = model.against("quantize-kv");
    assert!(
        near(cache["mean_kl"].as_f64().unwrap(), kl)
            && near(cache["perplexity"].as_f64().unwrap(), perplexity)
    );

    let only = "quantize-weights{keep=*attn*|*gate*|*up*|lm_head*}";
    let down = |pass| {
        of_pass(&found, pass).into_iter().find(|row| row["site"].to_string().contains("down")).unwrap()
    };
    let (weight, input) = (down("quantize-weights"), down("quantize-activations"));
    let (kl, _) = model.against(only);
    assert!(near(weight["mean_kl"].as_f64().unwrap(), kl), "{kl}: {weight:#}");
    let (both, perplexity) = model.against(&format!("{only},quantize-activations"));
    assert!(near(sum(&[weight, input.clone()], "/mean_kl"), both), "{both}: {input:#}");
    assert!(near(input["perplexity"].as_f64().unwrap(), perplexity), "{perplexity}: {input:#}");
}

#[test]
fn an_artifact_is_refused() {
    let model = tiny();
    let (out, text, dir) = (model.path("out.fireq"), model.path("text"), model.dir.to_str().unwrap());
    run(&["compile", dir, "-o", &out]);
    let result = fireq(&["eval", &out, "--text", &text, "--by-site"]);
    let expected = format!(
        "error: --by-site quantizes a model itself, and `{out}` is no model directory\n  help: give the directory with config.json and *.safetensors that it came from\n"
    );
    assert_eq!(String::from_utf8_lossy(&result.stderr), expected);
    assert_eq!(result.status.code(), Some(1));
}

#[test]
fn the_demo_model_is_judged_alike_on_any_number_of_threads() {
    let models = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/models");
    let [dir, text] = ["tinystories-3m", "stories.txt"].map(|n| models.join(n).to_str().unwrap().to_string());
    let found = |threads| {
        let line = ["eval", &dir, "--text", &text, "--by-site", "--limit", "250", "--ctx", "100", "--json"];
        run(&[&line[..], &["--threads", threads]].concat())
    };
    assert_eq!(found("1"), found("2"));
}
