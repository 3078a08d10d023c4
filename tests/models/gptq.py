"""GPTQ of a Llama checkpoint, as AutoGPTQ stores it: symmetric codes of 4 bits in groups, for `fireq compile` to take over.

    python gptq.py MODEL_DIR OUT_DIR [--text FILE] [--group 128] [--nearest] [--zeros] [--act-order]

needs torch, transformers and safetensors. One layer after another: the inner products of what its linears read are summed over the
text, channels are rounded in order, and those that are not yet rounded make up for the error (Frantar et al., 2022). --nearest
rounds without that, --zeros has zero points, --act-order rounds the largest inputs first.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

BITS, TOP = 4, 15


def scales(weight, zeros):
    """A scale f16 and a zero point for each row of a group, the best of some clip ratios."""
    high, low = weight.amax(1).clamp(min=0), weight.amin(1).clamp(max=0)
    best = (torch.full_like(high, float("inf")), torch.ones_like(high), torch.zeros_like(high))
    for ratio in [1 - step / 50 for step in range(16)]:
        reach = torch.maximum(high, -low)
        scale = ratio * (high - low) / TOP if zeros else ratio * 2 * reach / TOP
        scale = scale.clamp(min=1e-6).half().float()
        zero = torch.round(-ratio * low / scale).clamp(1, TOP) if zeros else torch.full_like(scale, 8)
        codes = (torch.round(weight / scale[:, None]) + zero[:, None]).clamp(0, TOP)
        error = ((codes - zero[:, None]) * scale[:, None] - weight).pow(2).sum(1)
        better = error < best[0]
        best = tuple(torch.where(better, new, old) for new, old in zip((error, scale, zero), best))
    return best[1], best[2]


def quantize(weight, hessian, size, given):
    """Codes [K,N], scales and zero points [G,N], the group of each channel, and what they stand for."""
    rows, cols = weight.shape
    weight = weight.clone()
    order = torch.argsort(hessian.diagonal(), descending=True) if given.act_order else torch.arange(cols)
    weight, hessian = weight[:, order], hessian[order][:, order]
    hessian += torch.eye(cols) * (0.01 * hessian.diagonal().mean() + 1e-9)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    codes, all_scales, all_zeros = torch.zeros(rows, cols), [], []
    numbers = torch.zeros(rows, cols)
    for k in range(cols):
        if k % size == 0:
            scale, zero = scales(weight[:, k : k + size], given.zeros)
            all_scales.append(scale)
            all_zeros.append(zero)
        codes[:, k] = (torch.round(weight[:, k] / scale) + zero).clamp(0, TOP)
        numbers[:, k] = (codes[:, k] - zero) * scale
        if not given.nearest:
            error = (weight[:, k] - numbers[:, k]) / factor[k, k]
            weight[:, k + 1 :] -= error[:, None] * factor[k, k + 1 :]
    back = torch.argsort(order)
    groups = (torch.arange(cols) // size)[back]
    return codes[:, back].t().long(), torch.stack(all_scales), torch.stack(all_zeros).long(), groups, numbers[:, back]


def packed(codes):
    """Eight neighbours along the first dimension to a word, the first in the lowest bits."""
    words = sum(codes[n::8] << (BITS * n) for n in range(8))
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()


def stored(codes, scale, zero, groups):
    words = packed((zero - 1).t().contiguous()).t().contiguous()
    return {"qweight": packed(codes), "qzeros": words, "scales": scale.half(), "g_idx": groups.to(torch.int32)}


def main(given):
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(given.model)(Path(given.text).read_text())["input_ids"][: given.tokens]
    sequences = torch.tensor(tokens[: len(tokens) // 256 * 256]).reshape(-1, 256)
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    for n, layer in enumerate(model.model.layers):
        linears = {name: one for name, one in layer.named_modules() if isinstance(one, torch.nn.Linear)}
        sums = {name: torch.zeros(one.in_features, one.in_features) for name, one in linears.items()}

        def hook(name):
            def add(_, inputs):
                x = inputs[0].reshape(-1, inputs[0].shape[-1])
                sums[name] += x.t() @ x
            return add

        hooks = [one.register_forward_pre_hook(hook(name)) for name, one in linears.items()]
        model(sequences)
        [one.remove() for one in hooks]
        for name, one in linears.items():
            size = one.in_features if given.group < 0 else given.group
            *codes, numbers = quantize(one.weight.data, sums[name], size, given)
            one.weight.data = numbers
            base = f"model.layers.{n}.{name}"
            del tensors[f"{base}.weight"]
            tensors |= {f"{base}.{key}": tensor.contiguous() for key, tensor in stored(*codes).items()}
    out = Path(given.out)
    out.mkdir(exist_ok=True)
    save_file(tensors, out / "model.safetensors")
    config = json.loads((Path(given.model) / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq", "bits": BITS, "group_size": given.group, "desc_act": given.act_order,
        "sym": not given.zeros, "checkpoint_format": "gptq",
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        shutil.copy(Path(given.model) / name, out / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--text", default=str(Path(__file__).parent / "../../compiler/src/calibration.txt"))
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--group", type=int, default=128)
    for flag in ["--nearest", "--zeros", "--act-order"]:
        parser.add_argument(flag, action="store_true")
    with torch.no_grad():
        main(parser.parse_args())
