//! The families of models: one table of those that are imported, each as its difference from Llama, and one of well-known others, each
//! with what its graph would need.

/// A family whose graph is Llama's but for these differences.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Its name in `architectures`.
    pub architecture: &'static str,
    /// Its name in `model_type`, which counts where no architecture is given.
    pub model_type: &'static str,
    /// Biases of query, key and value projections.
    pub(super) qkv: Bias,
    /// Biases of the projection after attention.
    pub(super) o: Bias,
    /// Biases of gate, up and down projections.
    pub(super) mlp: Bias,
    /// When `sliding_window` says something.
    pub(super) window: Window,
    /// The base of rope where `rope_theta` is absent; `None` where it must be given.
    pub(super) theta: Option<f64>,
    /// Channels of a head where `head_dim` is absent; `None` for `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<u64>,
    /// Queries and keys are normalized per head before rope.
    pub(super) qk_norm: bool,
    /// Query, key and value projections are stored as one tensor, gate and up as another.
    pub(super) fused: bool,
}

/// When linears have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    Never,
    Always,
    /// Where `attention_bias` says so.
    Attention,
    /// Where `attention_bias` does not say otherwise.
    UnlessAttention,
    /// Where `attention_out_bias` says so.
    AttentionOut,
    /// Where `mlp_bias` says so.
    Mlp,
}

/// When layers see only the last tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Never,
    /// Wherever there is a `sliding_window`; the number stands for an absent key.
    Size(Option<u64>),
    /// Where `use_sliding_window` says so, in the layers from `max_window_layers` on.
    Switched,
}

const LLAMA: Family = Family {
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    qkv: Bias::Attention,
    o: Bias::Attention,
    mlp: Bias::Mlp,
    window: Window::Never,
    theta: Some(10000.0),
    head_dim: None,
    qk_norm: false,
    fused: false,
};

const MISTRAL: Family = Family {
    architecture: "MistralForCausalLM",
    model_type: "mistral",
    qkv: Bias::Never,
    o: Bias::Never,
    mlp: Bias::Never,
    window: Window::Size(Some(4096)),
    ..LLAMA
};

/// The families that are imported. The logits of each are compared with transformers' (`tests/models/references`).
pub const FAMILIES: &[Family] = &[
    LLAMA,
    MISTRAL,
    Family { architecture: "MinistralForCausalLM", model_type: "ministral", ..MISTRAL },
    Family {
        architecture: "Qwen2ForCausalLM",
        model_type: "qwen2",
        qkv: Bias::Always,
        window: Window::Switched,
        ..MISTRAL
    },
    Family {
        architecture: "Qwen3ForCausalLM",
        model_type: "qwen3",
        window: Window::Switched,
        mlp: Bias::Never,
        head_dim: Some(128),
        qk_norm: true,
        ..LLAMA
    },
    Family {
        architecture: "Phi3ForCausalLM",
        model_type: "phi3",
        window: Window::Size(None),
        fused: true,
        ..MISTRAL
    },
    Family {
        architecture: "SeedOssForCausalLM",
        model_type: "seed_oss",
        qkv: Bias::UnlessAttention,
        o: Bias::AttentionOut,
        head_dim: Some(128),
        ..LLAMA
    },
    Family {
        architecture: "CwmForCausalLM",
        model_type: "cwm",
        qkv: Bias::Never,
        o: Bias::Never,
        window: Window::Size(Some(8192)),
        theta: None,
        head_dim: Some(128),
        ..LLAMA
    },
];

/// The family of that architecture or, where none is given, of that model type.
pub(super) fn family(architecture: Option<&str>, model_type: Option<&str>) -> Option<&'static Family> {
    match architecture {
        Some(name) => FAMILIES.iter().find(|family| family.architecture == name),
        None => FAMILIES.iter().find(|family| Some(family.model_type) == model_type),
    }
}

/// What a well-known family that is not imported computes and fireq does not.
pub(super) fn needs(architecture: &str, model_type: Option<&str>) -> Option<&'static str> {
    let row = |name: &str| {
        let stem = stem(name);
        OTHERS.iter().find(|(stems, _)| stems.contains(&stem.as_str())).map(|(_, needs)| *needs)
    };
    let known = FAMILIES.iter().any(|family| stem(family.architecture) == stem(architecture));
    let headless = known.then_some("it ends in something else than logits of the next token");
    row(architecture).or(headless).or_else(|| row(model_type?))
}

/// `gptneox` of `GPTNeoXForCausalLM` and of `gpt_neox`.
fn stem(name: &str) -> String {
    let head = ["For", "LMHead"].iter().filter_map(|head| name.find(head)).min().unwrap_or(name.len());
    name[..head].replace(['_', '-'], "").to_lowercase()
}

/// Families by the stems of their names, and what each would need.
#[rustfmt::skip]
const OTHERS: &[(&[&str], &str)] = &[
    (&["gemma"], "Gemma adds 1 to the weights of its norms, multiplies embeddings by √hidden_size and gates with the tanh form of gelu"),
    (&["gemma2", "vaultgemma"], "Gemma 2 caps logits and attention scores with tanh (`final_logit_softcapping`, `attn_logit_softcapping`), has four norms in a block and lets every other layer see a window only"),
    (&["gemma3", "gemma3text", "gemma3n", "gemma4", "gemma4text"], "Gemma 3 has four norms in a block, norm weights plus 1, scaled embeddings, gelu, and layers with a window and another rope base between those without"),
    (&["mixtral"], "Mixtral routes each token to some of `num_local_experts` feed-forward networks"),
    (&["qwen2moe", "qwen3moe"], "its blocks route each token to some of `num_experts` feed-forward networks"),
    (&["olmoe", "phimoe", "granitemoe", "granitemoeshared", "granitemoehybrid", "jetmoe", "dbrx", "dots1", "minimax", "minimaxm2", "ernie45moe", "hunyuanv1moe", "glm4moe", "mellum"], "its blocks route each token to some of several feed-forward networks (a mixture of experts)"),
    (&["gptoss"], "GPT-OSS routes tokens to experts, has sinks in attention, and windows in every other layer"),
    (&["llama4", "llama4text"], "Llama 4 routes tokens to experts, leaves rope out of some layers and attends to chunks in the others"),
    (&["deepseek", "deepseekv2", "deepseekv3", "minicpm3", "youtu"], "attention keys and values come from a compressed latent (`kv_lora_rank`, multi-head latent attention), and DeepSeek routes tokens to experts"),
    (&["qwen3next", "qwen35", "qwen35text"], "most of its layers are gated delta nets, which carry a state instead of keys and values"),
    (&["mamba", "mamba2", "falconmamba", "rwkv", "xlstm"], "it has no attention: its layers carry a recurrent state"),
    (&["jamba", "bamba", "zamba", "zamba2", "falconh1", "nemotronh", "recurrentgemma", "lfm2"], "some of its layers are state-space, recurrent or convolutional ones instead of attention"),
    (&["gpt2", "gptbigcode"], "GPT-2 learns a vector for every position instead of rope, and has LayerNorm with biases and a feed-forward network of gelu without a gate"),
    (&["gptneox", "gptj", "codegen", "gptneo"], "it has LayerNorm with biases, rotates a part of each head, adds attention and feed-forward network in parallel, and has no gate"),
    (&["falcon", "rw"], "Falcon has LayerNorm, adds attention and feed-forward network in parallel, and has gelu without a gate"),
    (&["bloom", "mpt"], "it biases attention by distance (ALiBi) instead of rope, and has LayerNorm and gelu without a gate"),
    (&["opt", "biogpt", "xglm"], "it learns a vector for every position instead of rope, and has LayerNorm and a feed-forward network without a gate"),
    (&["phi", "phimsft"], "Phi-1 and Phi-2 have LayerNorm, rotate a part of each head (`partial_rotary_factor`), and add attention and a gelu network in parallel"),
    (&["phi3small"], "Phi-3-small attends to blocks (`blocksparse_params`), and gates with gegelu"),
    (&["phi3v", "phi4mm", "phi4multimodal"], "it reads images or sound beside text, and its language model has adapters for them"),
    (&["qwen2vl", "qwen25vl", "qwen3vl", "mllama", "llava", "llavanext", "paligemma", "idefics3", "internvl"], "it reads images beside text"),
    (&["olmo"], "OLMo has LayerNorm without weights, and clips queries, keys and values (`clip_qkv`)"),
    (&["olmo2", "olmo3", "exaone4"], "its norms are behind attention and feed-forward network instead of before them, and queries and keys are normalized whole or per head"),
    (&["cohere", "cohere2"], "Command has LayerNorm, adds attention and feed-forward network in parallel, and multiplies logits (`logit_scale`)"),
    (&["stablelm", "stablelmepoch"], "StableLM has LayerNorm with biases and rotates a part of each head (`partial_rotary_factor`)"),
    (&["starcoder2"], "StarCoder 2 has LayerNorm with biases and a feed-forward network of gelu without a gate"),
    (&["nemotron", "jais2", "persimmon", "arcee", "nanochat", "apertus"], "its feed-forward network has no gate of silu, but relu² or xielu"),
    (&["bitnet"], "BitNet has weights of three values, relu², and norms inside of attention and feed-forward network"),
    (&["granite", "hyperclovax", "minicpm"], "it multiplies embeddings, residuals, attention scores and logits by constants (`embedding_multiplier`, `residual_multiplier`, `attention_multiplier`, `logits_scaling`)"),
    (&["smollm3"], "SmolLM3 leaves rope out of every fourth layer (`no_rope_layers`)"),
    (&["helium", "ernie45"], "its rope pairs neighbouring channels instead of the halves of a head"),
    (&["glm", "glm4", "chatglm"], "GLM rotates neighbouring channels of a part of each head, and GLM-4 has four norms in a block"),
    (&["hunyuanv1dense"], "Hunyuan normalizes queries and keys behind rope instead of before it"),
    (&["ministral3"], "Ministral 3 scales queries by their position (`llama_4_scaling_beta`)"),
    (&["diffllama"], "DiffLlama subtracts one attention from another"),
    (&["qwen", "baichuan", "internlm", "internlm2", "internlm3", "yi", "exaone", "aquila", "orion", "decilm"], "its code is not a part of transformers, so that nothing here is compared with it; a checkpoint converted to LlamaForCausalLM is read"),
    (&["bert", "roberta", "deberta", "debertav2", "modernbert", "electra", "albert"], "it reads texts both ways, and does not continue them"),
    (&["t5", "bart", "mbart", "marian", "pegasus", "whisper", "t5gemma"], "it is an encoder with a decoder that attends to it"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn architectures_and_model_types_have_the_same_stem() {
        for (architecture, model_type) in [
            ("GPTNeoXForCausalLM", "gpt_neox"),
            ("GPT2LMHeadModel", "gpt2"),
            ("DeepseekV3ForCausalLM", "deepseek_v3"),
        ] {
            assert_eq!(stem(architecture), stem(model_type));
            assert!(needs(architecture, None).is_some() && needs("New", Some(model_type)).is_some());
        }
        for family in FAMILIES {
            assert_eq!(stem(family.architecture), stem(family.model_type));
        }
    }

    #[test]
    fn no_family_is_in_two_tables() {
        let mut seen: BTreeSet<String> = FAMILIES.iter().map(|family| stem(family.model_type)).collect();
        for name in OTHERS.iter().flat_map(|(stems, _)| *stems) {
            assert_eq!(*name, stem(name));
            assert!(seen.insert((*name).to_string()), "{name} twice");
        }
    }

    #[test]
    fn another_head_on_a_known_body_is_told_apart() {
        assert!(family(Some("LlamaForSequenceClassification"), Some("llama")).is_none());
        assert!(
            needs("LlamaForSequenceClassification", None).unwrap().contains("something else than logits")
        );
        assert!(needs("SomethingNewForCausalLM", Some("llama")).is_none());
    }
}
