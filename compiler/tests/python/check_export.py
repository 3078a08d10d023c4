"""Loads what `fireq export` writes with transformers and compressed-tensors, and compares it with fireq.

    check_export.py FIREQ MODEL_DIR…

FIREQ is the binary, MODEL_DIR a model that it compiles. Prints a line for each check: what differs by how much, and how much
is allowed; the first that fails is an error. Needs torch, transformers, compressed-tensors and safetensors.
"""

import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

TOKENS = [(n * n * 7 + 13 * n) % 500 for n in range(48)]


def check(what, error, allowed):
    print(f"{error:9.1e}  {allowed:7.0e}  {what}", flush=True)
    if not error <= allowed:
        sys.exit(f"{what}: {error} is more than {allowed}")


def holds(what, condition):
    print(f"{'yes' if condition else 'no':>9}           {what}", flush=True)
    if not condition:
        sys.exit(f"{what}: no")


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


class Fireq:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *words):
        subprocess.run([self.binary, *words], check=True, stdout=subprocess.DEVNULL)

    def compile(self, model, passes):
        self.run("compile", model, "--passes", passes, "-o", self.path("artifact"))
        return self.path("artifact")

    def export(self, source, form, dtype, name):
        self.run("export", source, "--format", form, "--dtype", dtype, "-o", self.path(name))
        return self.path(name)

    def logits(self, source, tokens=TOKENS):
        out = self.path("logits.safetensors")
        self.run("logits", source, "--tokens", ",".join(map(str, tokens)), "-o", out)
        return load_file(out)["logits"]


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@torch.no_grad()
def logits(model, tokens=TOKENS):
    return model(torch.tensor([tokens])).logits[0].float().numpy()


def token_errors(fireq, artifact, model):
    """The error of each token's logits, in short sequences: where sums that differ in their last bit are on both sides of a
    tie, an input is rounded to another E4M3 number, and all that follows differs by as much as rounding itself does."""
    errors = []
    for start in range(0, len(TOKENS), 4):
        tokens = TOKENS[start:start + 4]
        found, wanted = logits(model, tokens), fireq.logits(artifact, tokens)
        errors.extend(np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1))
    return np.sort(errors)


def unpacked(folder):
    """Every tensor of a packed checkpoint as numbers, by arithmetic on its words."""
    dense = {}
    packed = load_file(os.path.join(folder, "model.safetensors"))
    for name, tensor in packed.items():
        if name.endswith(".weight_packed"):
            module = name.removesuffix(".weight_packed")
            shape, scale = packed[f"{module}.weight_shape"], packed[f"{module}.weight_scale"]
            words = tensor.astype(np.int64) & 0xFFFFFFFF
            codes = np.stack([(words >> (4 * n)) & 15 for n in range(8)], axis=-1)
            codes = codes.reshape(len(words), -1).astype(np.float32) - 8
            assert list(shape) == list(codes.shape)
            dense[f"{module}.weight"] = codes * np.repeat(scale, codes.shape[1] // scale.shape[1], axis=1)
        elif ".weight_" not in name:
            dense[name] = tensor
    return dense


def as_vllm_decodes(folder, dense):
    """The weights of a packed checkpoint as vLLM's kernel for FP8 inputs decodes them: its loader rounds the scales of a row
    to E4M3 as if they were a token, its kernel the product of a code with such a scale."""
    made = dict(dense)
    packed = load_file(os.path.join(folder, "model.safetensors"))
    for name in (name for name in packed if name.endswith(".weight_scale")):
        module, scales = name.removesuffix(".weight_scale"), torch.from_numpy(packed[name])
        columns = made[f"{module}.weight"].shape[1] // scales.shape[1]
        codes = torch.from_numpy(dense[f"{module}.weight"]) / scales.repeat_interleave(columns, 1)
        codes = torch.nan_to_num(codes).round()
        factor = (scales.abs().amax(1, keepdim=True) / 448).clamp(min=1 / (448 * 512))
        scales = ((scales / factor).to(torch.float8_e4m3fn).float() / 8).to(torch.float8_e4m3fn).float()
        products = (codes * scales.repeat_interleave(columns, 1)).to(torch.float8_e4m3fn).float()
        made[f"{module}.weight"] = (products * factor * 8).numpy()
    return made


def distance(found, wanted, names):
    squares = [(np.square(found[name] - wanted[name]).sum(), np.square(wanted[name]).sum()) for name in names]
    return float(np.sqrt(np.sum(squares, axis=0)[0] / np.sum(squares, axis=0)[1]))


def write_dense(folder, like, tensors):
    os.makedirs(folder)
    with open(os.path.join(like, "config.json")) as file:
        config = json.load(file)
    del config["quantization_config"]
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    save_file(tensors, os.path.join(folder, "model.safetensors"))


def check_config(folder, preset):
    """What llm-compressor writes, and what vLLM asks of a configuration before it takes a kernel for it."""
    with open(os.path.join(folder, "config.json")) as file:
        raw = json.load(file)["quantization_config"]
    config = QuantizationConfig.model_validate(raw)
    holds("quant_method, format and status", (config.quant_method, config.format, config.quantization_status.value)
          == ("compressed-tensors", "pack-quantized", "compressed"))
    holds("no scheme for caches", config.kv_cache_scheme is None)
    for scheme in config.config_groups.values():
        wanted = preset_name_to_scheme(preset, scheme.targets)
        holds(f"scheme is {preset}", (scheme.weights, scheme.input_activations)
              == (wanted.weights, wanted.input_activations))
        weights, inputs = scheme.weights, scheme.input_activations
        if inputs is not None:
            holds("vLLM's conditions for CompressedTensorsW4A8Fp8", weights.num_bits == 4
                  and inputs.num_bits == 8 and weights.strategy == "group" and weights.group_size == 128
                  and inputs.strategy == "token" and not weights.dynamic and inputs.dynamic
                  and weights.symmetric and inputs.symmetric and weights.actorder is None)
        else:
            holds("vLLM's conditions for CompressedTensorsWNA16", weights.strategy == "group"
                  and weights.group_size in (32, 64, 128) and not weights.dynamic and weights.symmetric
                  and scheme.format == "pack-quantized")


def quantized_modules(model):
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "quantization_scheme")]


def check_w4a8(fireq, source):
    artifact = fireq.compile(source, "quantize-weights{fit=signed},quantize-activations")
    with_inputs = fireq.logits(artifact)
    packed = fireq.export(artifact, "compressed-tensors", "f32", "packed")
    numbers = fireq.export(artifact, "safetensors-bf16", "f32", "numbers")
    check_config(packed, "W4AFP8")
    model = load(packed)
    found = logits(model)
    decoded = load_file(os.path.join(numbers, "model.safetensors"))
    dense = unpacked(packed)
    modules = quantized_modules(model)
    holds("quantized linears are those of the file",
          sorted(f"{name}.weight" for name, _ in modules)
          == sorted(name for name in dense if f"{name.removesuffix('weight')}weight_packed"
                    in load_file(os.path.join(packed, "model.safetensors"))))
    worst = max(float(np.abs(module.weight.numpy() - dense[f"{name}.weight"]).max()) for name, module in modules)
    check("weights that compressed-tensors decompresses, of code times scale", worst, 0)
    with open(os.path.join(packed, "fireq-export.json")) as file:
        said = json.load(file)
    names, vllm = [f"{name}.weight" for name, _ in modules], as_vllm_decodes(packed, dense)
    for what, key, weights in [("exported", "error", dense), ("decoded by vLLM", "vllm_error", vllm)]:
        far = distance(weights, decoded, names)
        print(f"{far:9.1e}           (weights as {what}, of those that fireq's kernels decode)")
        check("what fireq says of that", abs(said[key] / far - 1), 1e-3)
    # Activations are quantized by compressed-tensors, weights are those that fireq's kernels decode.
    for name, module in modules:
        module.weight.data = torch.from_numpy(decoded[f"{name}.weight"])
    errors = token_errors(fireq, artifact, model)
    print(f"{errors[0]:9.1e} to {errors[-1]:.1e}  (tokens' logits, INT4 weights of fireq's and FP8 inputs)")
    check("two of three of them", errors[len(errors) * 2 // 3], 1e-5)
    for name, module in modules:
        module.weight.data = torch.from_numpy(vllm[f"{name}.weight"])
    exact = fireq.logits(source)
    quantized = relative(with_inputs, exact)
    print(f"{quantized:9.1e}           (fireq's logits, of the unquantized model's)")
    for what, other in [("exported", found), ("decoded by vLLM", logits(model))]:
        print(f"{relative(other, with_inputs):9.1e}           (logits of weights as {what}, of fireq's)")
        check("how far they are from the unquantized model's", relative(other, exact), 1.25 * quantized)
    for name, module in modules:
        module.quantization_enabled = False
        module.weight.data = torch.from_numpy(dense[f"{name}.weight"])
    write_dense(fireq.path("unpacked"), packed, dense)
    check("logits, INT4 weights as exported", relative(logits(model), fireq.logits(fireq.path("unpacked"))), 1e-5)
    return relative(found, with_inputs) / said["error"]


def check_weights(fireq, source, sensitivity):
    artifact = fireq.compile(source, "quantize-weights{fit=signed}")
    numbers = fireq.export(artifact, "safetensors-bf16", "f32", "numbers")
    wanted = fireq.logits(artifact)
    check("logits, INT4 weights as f32 numbers", relative(logits(load(numbers)), wanted), 1e-5)
    check_config(fireq.export(artifact, "compressed-tensors", "bf16", "packed"), "W4A16")
    rounded = fireq.export(artifact, "safetensors-bf16", "bf16", "rounded")
    with open(os.path.join(rounded, "fireq-export.json")) as file:
        rounding = json.load(file)["error"]
    allowed = 3 * rounding * sensitivity
    check("logits, INT4 weights as bf16 numbers", relative(logits(load(rounded)), wanted), allowed)
    half = logits(load(fireq.path("packed"), torch.bfloat16))
    holds("a model in bf16 loads and gives finite logits", bool(np.isfinite(half).all()))


def main():
    binary, *models = sys.argv[1:]
    for model in models:
        print(f"── {model}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            fireq = Fireq(binary, folder)
            check_weights(fireq, model, check_w4a8(fireq, model))


if __name__ == "__main__":
    main()
