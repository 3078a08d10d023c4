"""Times what PyTorch has for the work of timed cases: bench.py CASES.json RESULTS.json.

CASES.json lists objects with `name`, `torch` (a function below) and `sizes`. Times are medians of single calls on
random inputs, each behind a write of more than the level-2 cache holds, as the kernels' own times are. What several
cases have beside them is timed once. Attention has an entry for each backend, `seconds` or the `error` why it has none.
"""

import json
import sys

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    sys.exit(f"skipped: PyTorch is not installed, or too old: {error}")

FP8 = torch.float8_e4m3fn
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION"}


def random(*shape, dtype=torch.float32):
    return (torch.rand(*shape, device="cuda") * 2 - 1).to(dtype)


def fp8_rows(x):
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 448
    return (x / scale).to(FP8), scale


def copy(bytes):
    a = torch.randint(0, 255, (bytes // 2,), dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return lambda: b.copy_(a)


def gather(tokens, cols, rows):
    table, index = random(rows, cols, dtype=torch.bfloat16), torch.randint(0, rows, (tokens,), device="cuda")
    return torch.compile(lambda: table[index].float())


def add(tokens, cols):
    a, b = random(tokens, cols), random(tokens, cols)
    return lambda: a + b


def norm_quantize(tokens, cols):
    x, w = random(tokens, cols), random(cols)
    return torch.compile(lambda: fp8_rows(F.rms_norm(x, (cols,), w, 1e-5)))


def swiglu_quantize(tokens, cols):
    x = random(tokens, 2 * cols)
    return torch.compile(lambda: fp8_rows(F.silu(x[:, :cols]) * x[:, cols:]))


def logits(tokens, cols, channels):
    x, w = random(tokens, cols, dtype=torch.bfloat16), random(channels, cols, dtype=torch.bfloat16)
    return lambda: x @ w.T


def sample(tokens, cols, temperature, top_p):
    x = random(tokens, cols)

    def at_random():
        p = torch.softmax(x / temperature, -1)
        if top_p < 1:
            p, index = p.sort(-1, descending=True)
            p = torch.where(p.cumsum(-1) - p < top_p, p, 0)
            return index.gather(-1, torch.multinomial(p, 1))
        return torch.multinomial(p, 1)

    return torch.compile(at_random) if temperature > 0 else lambda: x.argmax(-1)


def decode(sequences, keys, heads, kv_heads, head):
    q = random(sequences, heads, 1, head, dtype=torch.bfloat16)
    k, v = (random(sequences, kv_heads, keys, head, dtype=torch.bfloat16) for _ in range(2))
    return attention(q, k, v, False)


def scaled_mm(tokens, cols, channels):
    x, w = random(tokens, cols).to(FP8), random(channels, cols).to(FP8).T
    a, b = torch.ones(tokens, 1, device="cuda"), torch.ones(1, channels, device="cuda")
    return lambda: torch._scaled_mm(x, w, scale_a=a, scale_b=b, out_dtype=torch.bfloat16)


def prefill(count, length, heads, kv_heads, head, causal):
    q = random(count, heads, length, head, dtype=torch.bfloat16)
    k, v = (random(count, kv_heads, length, head, dtype=torch.bfloat16) for _ in range(2))
    return attention(q, k, v, causal)


def attention(q, k, v, causal):
    """Heads of keys as they are, for backends that share them among query heads; for others repeated before."""

    def shared():
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    def repeated():
        wide = [x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v)]
        return lambda: F.scaled_dot_product_attention(q, *wide, is_causal=causal)

    return {"shared": shared, "repeated": repeated}


def backend(name, ways, flush):
    """The time of the first way in which a backend takes heads of keys, or why it takes none."""
    errors = []
    for heads, make in ways.items():
        try:
            with sdpa_kernel(getattr(SDPBackend, name)):
                return {"seconds": time(make(), flush), "heads": heads}
        except Exception as error:
            errors.append(f"{heads}: {str(error)[:200]}")
    return {"error": "; ".join(errors)}


def time(run, flush):
    for _ in range(5):
        run()
    times = []
    for _ in range(51):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def measured(case, flush):
    try:
        work = globals()[case["torch"]](**case["sizes"])
        if isinstance(work, dict):
            return {name: backend(of, work, flush) for name, of in BACKENDS.items()}
        return {"seconds": time(work, flush)}
    except Exception as error:  # One that fails must not lose the others.
        return {"error": str(error)[:200]}


def main(cases, results):
    flush = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.uint8, device="cuda")
    found, known = {"torch": torch.__version__, "cases": {}}, {}
    for case in json.load(open(cases)):
        work = json.dumps([case["torch"], case["sizes"]], sort_keys=True)
        if work not in known:
            known[work] = measured(case, flush)
        found["cases"][case["name"]] = known[work]
        print(case["name"], found["cases"][case["name"]], file=sys.stderr)
        json.dump(found, open(results, "w"), indent=1)


main(*sys.argv[1:])
