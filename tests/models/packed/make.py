"""Makes the checkpoints beside this file: a decoder of one small layer, its weights packed by the tools that define the formats,
and in expected.safetensors what these tools say that some of the weights stand for, in f32.

    python make.py --auto-gptq DIR --autoawq DIR

needs torch, transformers, safetensors and compressed-tensors (made with 0.20.1); DIR is where auto_gptq 0.7.1 and autoawq 0.2.9
are unpacked, of which the modules for linears are loaded without the rest.
"""

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
SHAPES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (64, 64),
    "mlp.up_proj": (64, 64),
    "mlp.down_proj": (64, 64),
}
SHOWN = ["self_attn.k_proj", "mlp.down_proj"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 64,
    "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "tie_word_embeddings": True,
    "bos_token_id": 0, "eos_token_id": 1,
}


def module(name, path, parents=()):
    """A file as a module, its packages being empty ones."""
    for parent in parents:
        package = types.ModuleType(parent[0])
        package.__path__ = [str(parent[1])]
        sys.modules[parent[0]] = package
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def affine(weight, bits, size, symmetric):
    """Scales f16 and zero points by row and group, as GPTQ's quantizer finds them."""
    rows, cols = weight.shape
    groups = weight.reshape(rows, cols // size, size)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    top = 2**bits - 1
    if symmetric:
        high = torch.maximum(low.abs(), high)
        low = -high
    scale = ((high - low) / top).half().float()
    zero = torch.full_like(scale, (top + 1) / 2) if symmetric else torch.round(-low / scale)
    return scale, zero.clamp(1, top)


def nearest(weight, scale, zero, groups, bits):
    """The numbers that codes stand for: packers find the codes again."""
    scale, zero = scale[:, groups], zero[:, groups]
    return (torch.clamp(torch.round(weight / scale) + zero, 0, 2**bits - 1) - zero) * scale


def gptq(cuda, name, weight, bits, size, symmetric, act_order):
    rows, cols = weight.shape
    groups = torch.arange(cols) // size
    if act_order:
        groups = groups[torch.randperm(cols)]
    scale, zero = affine(weight[:, torch.argsort(groups, stable=True)], bits, size, symmetric)
    linear = torch.nn.Linear(cols, rows, bias=False)
    linear.weight.data = nearest(weight, scale, zero, groups, bits)
    packed = cuda.QuantLinear(bits, size, cols, rows, False, weight_dtype=torch.float32)
    packed.pack(linear, scale.clone(), zero.clone(), groups.to(torch.int32))
    numbers = packed(torch.eye(cols)).t()
    tensors = {"qweight": packed.qweight, "qzeros": packed.qzeros, "scales": packed.scales.half(), "g_idx": packed.g_idx}
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}, numbers


def awq(gemm, name, weight, size):
    rows, cols = weight.shape
    groups = torch.arange(cols) // size
    scale, zero = affine(weight, 4, size, False)
    linear = torch.nn.Linear(cols, rows, bias=False)
    linear.weight.data = nearest(weight, scale, zero, groups, 4)
    scale, zero = scale.t().contiguous(), zero.t().contiguous()
    packed = gemm.WQLinear_GEMM.from_linear(linear, 4, size, scales=scale, zeros=zero)
    tensors = {"qweight": packed.qweight, "qzeros": packed.qzeros, "scales": packed.scales}
    numbers = gemm.dequantize_gemm(packed.qweight, packed.qzeros, packed.scales.float(), 4, size).t()
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}, numbers


def compressed(name, weight, scheme):
    from compressed_tensors.compressors.naive_quantized.base import FloatQuantizationCompressor
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    args = scheme.weights
    size = args.group_size or weight.shape[1]
    groups = weight.reshape(weight.shape[0], -1, size)
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    scale = scale.bfloat16()
    tool = PackedQuantizationCompressor if args.type == "int" else FloatQuantizationCompressor
    state = {"weight": weight, "weight_scale": scale.float()}
    if not args.symmetric:
        state["weight_zero_point"] = zero
    packed = tool.compress(state, scheme)
    numbers = tool.decompress(dict(packed), scheme)["weight"]
    packed["weight_scale"] = scale
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in packed.items()}, numbers


def write(label, quantization, pack):
    torch.manual_seed(7)
    tensors, expected = {}, {}
    for name, (rows, cols) in SHAPES.items():
        full = f"model.layers.0.{name}"
        packed, numbers = pack(full, torch.randn(rows, cols) * 0.05)
        tensors.update(packed)
        if name in SHOWN:
            expected[f"{full}.weight"] = numbers.detach().float().contiguous()
    tensors["model.embed_tokens.weight"] = (torch.randn(32, 64) * 0.05).half()
    for norm in ["model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]:
        tensors[f"{norm}.weight"] = torch.ones(64).half()
    folder = HERE / label
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    save_file(expected, folder / "expected.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": quantization}, indent=2) + "\n")


def write_gptq(folder):
    import transformers  # noqa: F401, which the module takes for granted

    cuda = module("qlinear_cuda", Path(folder) / "auto_gptq/nn_modules/qlinear/qlinear_cuda.py")
    for label, bits, symmetric, act_order in [
        ("gptq-4", 4, True, False), ("gptq-4-zeros-act-order", 4, False, True), ("gptq-8-zeros", 8, False, False),
    ]:
        keys = {"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": symmetric, "desc_act": act_order}
        write(label, keys, lambda name, weight: gptq(cuda, name, weight, bits, 32, symmetric, act_order))


def write_awq(folder):
    root = Path(folder) / "awq"
    parents = [("awq", root), ("awq.utils", root / "utils")]
    # Of this file one function is wanted, and the rest wants more packages.
    sys.modules["awq.utils.utils"] = types.SimpleNamespace(get_best_device=lambda: "cpu")
    gemm = module("gemm", root / "modules/linear/gemm.py", parents)
    keys = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
    write("awq-4", keys, lambda name, weight: awq(gemm, name, weight, 32))


def write_compressed():
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    for label, form, args in [
        ("compressed-4", "pack-quantized", dict(num_bits=4, type="int", strategy="group", group_size=32)),
        ("compressed-4-zeros", "pack-quantized", dict(num_bits=4, type="int", symmetric=False, strategy="group", group_size=32)),
        ("compressed-8-rows", "pack-quantized", dict(num_bits=8, type="int", strategy="channel")),
        ("compressed-fp8", "float-quantized", dict(num_bits=8, type="float", strategy="channel")),
    ]:
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
        config = QuantizationConfig(config_groups={"group_0": scheme}, format=form, ignore=["lm_head"])
        keys = json.loads(config.model_dump_json())
        write(label, keys, lambda name, weight: compressed(name, weight, scheme))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--auto-gptq", required=True)
    parser.add_argument("--autoawq", required=True)
    given = parser.parse_args()
    with torch.no_grad():
        write_gptq(given.auto_gptq)
        write_awq(given.autoawq)
        write_compressed()
