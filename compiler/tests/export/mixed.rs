//! What differs from tensor to tensor: kept weights, groups, inputs.

use std::fs;

use serde_json::{Value, json};

use super::{DEMO, Place};

impl Place {
    /// Exports the demo model by a recipe.
    fn demo(&self, recipe: &str) -> (String, Value) {
        fs::write(self.path("recipe.toml"), recipe).unwrap();
        let said =
            self.export(DEMO, "compressed-tensors", "packed", &["--recipe", &self.text("recipe.toml")]);
        (said, self.json("packed/config.json")["quantization_config"].clone())
    }
}

#[test]
fn kept_weights_are_ignored() {
    let place = Place::new();
    let (said, config) = place.demo("[[override]]\ntensors = \"*.0.mlp.down_proj.weight\"\nkeep = true\n");
    assert_eq!(config["ignore"], json!(["lm_head", "model.layers.0.mlp.down_proj"]));
    assert_eq!(config["config_groups"]["group_0"]["targets"], json!(["Linear"]));
    assert!(said.contains("27 INT4 for FP8 inputs, 2 bf16 numbers") && !said.contains("note"), "{said}");
    let found = place.tensors("packed");
    assert!(found.contains_key("model.layers.0.mlp.down_proj.weight"));
    assert!(!found.contains_key("model.layers.0.mlp.down_proj.weight_packed"));
}

#[test]
fn what_vllm_multiplies_together_is_quantized_together_or_not_at_all() {
    let place = Place::new();
    let (said, config) = place.demo("[[override]]\ntensors = \"*.1.self_attn.k_proj.weight\"\nkeep = true\n");
    let ignored = ["k_proj", "q_proj", "v_proj"].map(|name| format!("model.layers.1.self_attn.{name}"));
    assert_eq!(config["ignore"], json!([&["lm_head".to_string()], &ignored[..]].concat()));
    let why = "  note      1.self_attn.q_proj, 1.self_attn.v_proj: numbers, since others that vLLM multiplies along with them \
               are quantized otherwise\n";
    assert!(said.contains(why), "{said}");
}

#[test]
fn groups_of_several_sizes_name_their_linears() {
    let place = Place::new();
    let (said, config) = place.demo("[[override]]\ntensors = \"*.down_proj.weight\"\ngroup = 64\n");
    let groups = &config["config_groups"];
    let targets = |n: usize| groups[format!("group_{n}")]["targets"].as_array().unwrap().clone();
    assert_eq!((targets(0).len(), targets(1).len()), (4, 24));
    assert_eq!(targets(0)[3], "model.layers.3.mlp.down_proj");
    assert_eq!(groups["group_0"]["weights"]["group_size"], 64);
    assert_eq!(groups["group_0"]["input_activations"], Value::Null);
    assert_eq!(groups["group_1"]["weights"]["group_size"], 128);
    assert_eq!(groups["group_1"]["input_activations"]["strategy"], "token");
    assert!(said.contains("24 INT4 for FP8 inputs, 4 INT4 for bf16 inputs"), "{said}");
    assert!(
        said.contains("3 more")
            || said.contains("0.mlp.down_proj, 1.mlp.down_proj, 2.mlp.down_proj and 1 more"),
        "{said}"
    );
}

#[test]
fn inputs_that_stay_as_they_are_do_so() {
    let place = Place::new();
    let (said, config) = place.demo("[activations]\nquantize = false\n");
    assert_eq!(config["config_groups"]["group_0"]["input_activations"], Value::Null);
    assert!(said.contains("28 INT4 for bf16 inputs") && !said.contains("note"), "{said}");
    assert!(!said.contains("vLLM's kernel"), "{said}");
}
