//! Configurations that are not understood are refused: exit code 1, one clear message, a hint, and no output.

mod tiny;

use std::fs;

use fireq::import::ModelConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::{refused, refused_config};

#[test]
fn missing_layers() {
    refused_config(
        |c| c["num_hidden_layers"] = json!(3),
        "error: the checkpoint lacks tensors `model.layers.2.input_layernorm.weight`, `model.layers.2.mlp.down_proj.weight`, `model.layers.2.mlp.gate_proj.weight` and 6 more\n  \
         help: config.json and the weights belong to different models, or a shard is missing",
    );
}

#[test]
fn an_unknown_architecture() {
    refused_config(
        |c| c["architectures"] = json!(["GPT2LMHeadModel"]),
        "error: `{dir}/config.json`: architecture `GPT2LMHeadModel` is not supported: GPT-2 learns a vector for every position instead of \
         rope, and has LayerNorm with biases and a feed-forward network of gelu without a gate\n  \
         help: fireq compiles LlamaForCausalLM, MistralForCausalLM, MinistralForCausalLM, Qwen2ForCausalLM, \
         Qwen3ForCausalLM, Phi3ForCausalLM, SeedOssForCausalLM and CwmForCausalLM",
    );
}

#[test]
fn no_architecture_at_all() {
    let strip = |c: &mut Value| {
        c.as_object_mut().unwrap().retain(|key, _| key != "architectures" && key != "model_type");
    };
    refused_config(
        strip,
        "error: `{dir}/config.json`: no architecture is named\n  \
         help: fireq compiles LlamaForCausalLM, MistralForCausalLM, MinistralForCausalLM, Qwen2ForCausalLM, \
         Qwen3ForCausalLM, Phi3ForCausalLM, SeedOssForCausalLM and CwmForCausalLM",
    );
}

#[test]
fn an_unknown_activation() {
    refused_config(
        |c| c["hidden_act"] = json!("gelu"),
        "error: `{dir}/config.json`: activation `gelu` is not supported\n  \
         help: fireq computes the activation silu",
    );
}

#[test]
fn an_unknown_rope_type() {
    refused_config(
        |c| c["rope_parameters"]["rope_type"] = json!("sideways"),
        "error: `{dir}/config.json`: rope type `sideways` is not supported\n  \
         help: fireq computes the rope types default, linear, dynamic, yarn, longrope and llama3; another \
         would give wrong text",
    );
}

#[test]
fn an_unknown_rope_type_in_the_keys_of_transformers_4() {
    let older = |c: &mut Value| {
        c["rope_parameters"] = Value::Null;
        c["rope_scaling"] = json!({ "type": "proportional", "factor": 2.0 });
    };
    refused_config(
        older,
        "error: `{dir}/config.json`: rope type `proportional` is not supported\n  \
         help: fireq computes the rope types default, linear, dynamic, yarn, longrope and llama3; another \
         would give wrong text",
    );
}

#[test]
fn a_rope_type_without_its_factor() {
    refused_config(
        |c| c["rope_parameters"] = json!({ "rope_type": "linear" }),
        "error: `{dir}/config.json`: rope parameter `factor` is missing\n  \
         help: rope type linear needs `factor`, a positive number",
    );
}

#[test]
fn rope_parameters_for_each_kind_of_layer() {
    refused_config(
        |c| c["rope_parameters"] = json!({ "full_attention": { "rope_theta": 1e6 } }),
        "error: `{dir}/config.json`: rope parameters for each kind of layer (`full_attention`) are not supported\n  \
         help: use a model with one set of rope parameters",
    );
}

#[test]
fn sizes_out_of_bounds() {
    let expected = |problem: &str, key: &str, most: usize| {
        format!("error: `{{dir}}/config.json`: {problem}\n  help: `{key}` is a whole number from 1 to {most}")
    };
    let zero = expected("`num_hidden_layers` is 0", "num_hidden_layers", 1024);
    refused_config(|c| c["num_hidden_layers"] = json!(0), &zero);
    let huge = expected("`vocab_size` is 1152921504606846976", "vocab_size", 16777216);
    refused_config(|c| c["vocab_size"] = json!(1u64 << 60), &huge);
    let absent = expected("`hidden_size` is missing", "hidden_size", 131072);
    refused_config(|c| drop(c.as_object_mut().unwrap().remove("hidden_size")), &absent);
}

#[test]
fn an_odd_head_size() {
    refused_config(
        |c| c["head_dim"] = json!(31),
        "error: `{dir}/config.json`: head_dim 31 is odd\n  \
         help: rope rotates pairs of channels: head_dim is even",
    );
}

#[test]
fn key_value_heads_that_do_not_divide_the_heads() {
    refused_config(
        |c| c["num_key_value_heads"] = json!(3),
        "error: `{dir}/config.json`: 2 attention heads do not divide into 3 key/value heads\n  \
         help: num_key_value_heads divides num_attention_heads",
    );
}

#[test]
fn a_checkpoint_quantized_in_a_way_that_is_not_read() {
    refused_config(
        |c| c["quantization_config"] = json!({ "quant_method": "bitsandbytes", "load_in_4bit": true }),
        "error: `{dir}/config.json`: the checkpoint is quantized by `bitsandbytes`\n  \
         help: fireq reads gptq, awq, compressed-tensors and fp8; of others, compile the original f32, f16 or bf16 checkpoint",
    );
}

#[test]
fn a_configuration_that_is_not_json() {
    refused(
        |dir| fs::write(dir.join("config.json"), "{\n  \"vocab_size\": 32,,\n}").unwrap(),
        "error: `{dir}/config.json` is not valid JSON for a model\n  \
         cause: key must be a string at line 2 column 20\n  \
         help: download the file again, or correct it at the line and column above",
    );
}

#[test]
fn a_configuration_with_a_value_of_another_type() {
    refused_config(
        |c| c["vocab_size"] = json!("many"),
        "error: `{dir}/config.json` is not valid JSON for a model\n  \
         cause: invalid type: string \"many\", expected u64 at line 1 column 421\n  \
         help: download the file again, or correct it at the line and column above",
    );
}

#[test]
fn more_tokens_than_the_context() {
    refused_config(
        |c| c["max_position_embeddings"] = json!(2),
        "error: 3 tokens do not fit the context of 2\n  \
         help: give fewer tokens",
    );
}

/// Well-known families, and a word of what each needs.
const OTHERS: [(&str, &str); 26] = [
    ("GemmaForCausalLM", "adds 1 to the weights of its norms"),
    ("Gemma2ForCausalLM", "`final_logit_softcapping`"),
    ("Gemma3ForCausalLM", "four norms"),
    ("Gemma3ForConditionalGeneration", "four norms"),
    ("MixtralForCausalLM", "`num_local_experts`"),
    ("Qwen2MoeForCausalLM", "`num_experts`"),
    ("Qwen3MoeForCausalLM", "`num_experts`"),
    ("GPT2LMHeadModel", "vector for every position"),
    ("GPTNeoXForCausalLM", "in parallel"),
    ("FalconForCausalLM", "in parallel"),
    ("PhiForCausalLM", "`partial_rotary_factor`"),
    ("Phi4MultimodalForCausalLM", "images or sound"),
    ("DeepseekV2ForCausalLM", "`kv_lora_rank`"),
    ("DeepseekV3ForCausalLM", "`kv_lora_rank`"),
    ("OlmoForCausalLM", "`clip_qkv`"),
    ("Olmo2ForCausalLM", "behind attention"),
    ("CohereForCausalLM", "`logit_scale`"),
    ("StableLmForCausalLM", "LayerNorm"),
    ("Llama4ForConditionalGeneration", "chunks"),
    ("GraniteForCausalLM", "`residual_multiplier`"),
    ("SmolLM3ForCausalLM", "`no_rope_layers`"),
    ("ArceeForCausalLM", "relu²"),
    ("HeliumForCausalLM", "neighbouring channels"),
    ("InternLM3ForCausalLM", "LlamaForCausalLM"),
    ("LlavaForConditionalGeneration", "images"),
    ("LlamaForSequenceClassification", "something else than logits"),
];

#[test]
fn families_that_are_not_computed_say_what_they_need() {
    for (architecture, word) in OTHERS {
        let dir = TempDir::new().unwrap();
        let mut config = tiny::config();
        config["architectures"] = json!([architecture]);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let error = ModelConfig::read(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("architecture `{architecture}` is not supported: ")), "{text}");
        assert!(text.contains(word), "{text}");
        assert!(error.hint().starts_with("fireq compiles LlamaForCausalLM, "), "{}", error.hint());
    }
}

#[test]
fn a_language_model_inside_of_another() {
    let expected = "error: `{dir}/config.json`: architecture `NewForConditionalGeneration` is not supported: beside the \
                    language model of its `text_config` it has other parts\n  help: fireq compiles LlamaForCausalLM, \
                    MistralForCausalLM, MinistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Phi3ForCausalLM, \
                    SeedOssForCausalLM and CwmForCausalLM";
    refused_config(
        |c| {
            *c = json!({ "architectures": ["NewForConditionalGeneration"], "model_type": "new", "text_config": c.clone() });
        },
        expected,
    );
}

#[test]
fn heads_of_which_a_part_is_rotated() {
    refused_config(
        |c| c["rope_parameters"]["partial_rotary_factor"] = json!(0.75),
        "error: `{dir}/config.json`: partial_rotary_factor 0.75 is not supported\n  \
         help: use a model that rotates whole heads",
    );
}

#[test]
fn longrope_with_factors_for_other_heads() {
    let factors = |c: &mut Value, short: Value| {
        let long = vec![2.0; 16];
        c["rope_parameters"] = json!({ "rope_type": "longrope", "short_factor": short, "long_factor": long });
    };
    let hint =
        "help: rope type longrope needs `short_factor`, a positive number for each of 16 pairs of channels";
    let expected = |problem: &str| format!("error: `{{dir}}/config.json`: {problem}\n  {hint}");
    refused_config(
        |c| factors(c, json!([1.0, 1.0])),
        &expected("rope parameter `short_factor` has 2 numbers"),
    );
    refused_config(|c| factors(c, json!(vec![0.0; 16])), &expected("rope parameter `short_factor` has 0"));
    refused_config(|c| factors(c, Value::Null), &expected("rope parameter `short_factor` is missing"));
}

#[test]
fn yarn_without_its_factor() {
    refused_config(
        |c| c["rope_parameters"]["rope_type"] = json!("yarn"),
        "error: `{dir}/config.json`: rope parameter `factor` is missing\n  \
         help: rope type yarn needs `factor`, a positive number",
    );
}
