#!/usr/bin/env python3
"""Writes tests/models/references: configurations of tiny models, and the logits that transformers computes with them.

    pip install torch transformers safetensors numpy && python tests/models/make_references.py

Weights are not stored: `weight` here and in compiler/tests/references makes the same ones from a tensor's name. Of each sequence the last
rows of logits are kept. The files' metadata says with which versions they were made.
"""

import json
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import save_file

OUT = Path(__file__).parent / "references"
ROWS = 3

BASE = {
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FACTORS = {
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.5],
}


def rope(kind, theta=10000.0, **numbers):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **numbers}}


def sizes(hidden, heads, kv_heads, head):
    widths = {"vocab_size": 257, "hidden_size": hidden, "intermediate_size": 172}
    return {**widths, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head}


LONGROPE = {**rope("longrope", **FACTORS), "original_max_position_embeddings": 16}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
DYNAMIC = {**rope("dynamic", factor=2.0), "max_position_embeddings": 32}

# Name: architecture, what differs from BASE, tokens, and the context to import for where it is not the configuration's.
MODELS = {
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True, **rope("default")}, 12, None),
    "mistral": ("Mistral", {"head_dim": 32, "sliding_window": 16, **rope("default")}, 12, None),
    "ministral": ("Ministral", {"head_dim": 32, "sliding_window": 16, **rope("default", 1e6)}, 12, None),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True, **rope("default", 1e6)}, 12, None),
    "qwen3": ("Qwen3", {"head_dim": 24, **rope("default", 1e6)}, 12, None),
    "phi3": ("Phi3", {"sliding_window": 20, **rope("default")}, 12, None),
    "seed-oss": ("SeedOss", {"head_dim": 32, "attention_bias": True, **rope("default", 1e7)}, 12, None),
    "cwm": (
        "Cwm",
        {
            "head_dim": 32,
            "sliding_window": 24,
            **rope("llama3", 1e6, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
        },
        12,
        None,
    ),
    "rope-linear": ("Llama", rope("linear", factor=4.0), 48, None),
    "rope-llama3": (
        "Llama",
        rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
        48,
        None,
    ),
    "rope-dynamic-within": ("Llama", DYNAMIC, 30, None),
    "rope-dynamic-beyond": ("Llama", DYNAMIC, 48, 48),
    "rope-yarn": ("Qwen2", rope("yarn", 1e6, **YARN), 48, None),
    "rope-yarn-mscale": (
        "Llama",
        rope("yarn", beta_fast=16.0, beta_slow=2.0, mscale=1.5, mscale_all_dim=0.5, truncate=False, **YARN),
        48,
        None,
    ),
    "rope-yarn-factor": ("Llama", rope("yarn", attention_factor=1.25, **YARN), 48, None),
    "phi3-longrope-short": ("Phi3", LONGROPE, 16, 16),
    "phi3-longrope-long": ("Phi3", LONGROPE, 48, None),
    "odd-9-heads": ("Llama", {**sizes(576, 9, 3, 64), **rope("default")}, 12, None),
    "odd-head-48": ("Llama", {**sizes(144, 3, 1, 48), **rope("default")}, 12, None),
    "odd-head-80": ("Qwen2", {**sizes(240, 3, 1, 80), **rope("default")}, 12, None),
    "odd-head-96": ("Qwen3", {**sizes(96, 3, 3, 96), **rope("default")}, 12, None),
}


def uniform(name, count):
    """Numbers of -1 to 1 with 24 bits each: splitmix64 from the FNV-1a hash of a name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with numpy.errstate(over="ignore"):
        x = numpy.uint64(seed) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x = x ^ (x >> numpy.uint64(31))
    return (x >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**23) - numpy.float32(1)


def weight(name, shape):
    """Norms are about 1, biases up to a half, and matrices keep the size of what they multiply."""
    numbers = uniform(name, int(numpy.prod(shape)))
    if len(shape) == 2:
        numbers = numbers * numpy.float32(2.0 ** (1 - shape[1].bit_length() // 2))
    elif "norm" in name:
        numbers = numpy.float32(1) + numbers * numpy.float32(0.25)
    else:
        numbers = numbers * numpy.float32(0.5)
    return torch.from_numpy(numbers.reshape(shape))


def make(name, family, differences, tokens, context):
    config = getattr(transformers, f"{family}Config")(**{**BASE, **differences})
    model = getattr(transformers, f"{family}ForCausalLM")._from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(weight(key, tuple(parameter.shape)))
        ids = torch.arange(tokens) * 37 % config.vocab_size
        logits = model.eval()(ids[None]).logits[0, -ROWS:]
    out = OUT / name
    out.mkdir(parents=True, exist_ok=True)
    keys = {"architectures": [f"{family}ForCausalLM"], "model_type": config.model_type, **BASE, **differences}
    (out / "config.json").write_text(json.dumps(keys, indent=2) + "\n")
    metadata = {"transformers": transformers.__version__, "torch": torch.__version__}
    if context:
        metadata["context"] = str(context)
    tensors = {"tokens": ids.to(torch.int32), "logits": logits.contiguous()}
    save_file(tensors, out / "reference.safetensors", metadata)
    print(f"{name}: {logits.std():.3f}")


if __name__ == "__main__":
    for name, arguments in MODELS.items():
        make(name, *arguments)
