"""Times a Llama in bf16 with what PyTorch has: bench_model.py CONFIG.json RESULTS.json [cpu].

CONFIG.json is a config.json; weights are random. Prompts of 16 x 1024 tokens are read in one step, and one token is decoded for
1, 16 and 64 sequences behind 1024 keys, with the choice of the likeliest token, which stays on the GPU. `eager` is plain
PyTorch; `compiled` has torch.compile on the block, and for decoding a CUDA graph of the whole step. Keys to decode behind are
random: what is in them changes no time.
"""

import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("skipped: PyTorch is not installed")

PREFILL = [(16, 1024)]
DECODE = [(1, 1024), (16, 1024), (64, 1024)]
REPEAT, STEPS = 5, 32


class Llama:
    def __init__(self, config, device):
        self.layers, hidden = config["num_hidden_layers"], config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.head = config.get("head_dim", hidden // self.heads)
        self.eps, self.device, wide = config["rms_norm_eps"], device, config["intermediate_size"]
        self.theta, vocab = config.get("rope_theta", 10000.0), config["vocab_size"]
        torch.manual_seed(0)

        def matrix(rows, cols):
            return torch.empty(rows, cols, dtype=torch.bfloat16, device=device).normal_(std=0.02)

        def block():
            q, kv = self.heads * self.head, self.kv_heads * self.head
            return {
                "norm": torch.ones(hidden, dtype=torch.bfloat16, device=device),
                "mlp_norm": torch.ones(hidden, dtype=torch.bfloat16, device=device),
                "qkv": matrix(q + 2 * kv, hidden),
                "o": matrix(hidden, q),
                "gate_up": matrix(2 * wide, hidden),
                "down": matrix(hidden, wide),
            }

        self.blocks = [block() for _ in range(self.layers)]
        self.embedding = matrix(vocab, hidden)
        self.output = self.embedding if config.get("tie_word_embeddings") else matrix(vocab, hidden)
        self.norm = torch.ones(hidden, dtype=torch.bfloat16, device=device)
        self.vocab, self.hidden = vocab, hidden

    def cache(self, sequences, positions):
        """Keys and values of a layer, in order [layer][key or value]."""
        shape = (sequences, self.kv_heads, positions, self.head)
        one = lambda: torch.randn(shape, dtype=torch.bfloat16, device=self.device)
        return [(one(), one()) for _ in range(self.layers)]

    def rope(self, positions):
        exponents = torch.arange(0, self.head, 2, device=self.device) / self.head
        angles = positions[:, None].float() * self.theta**-exponents
        angles = torch.cat([angles, angles], -1)
        return angles.cos().bfloat16(), angles.sin().bfloat16()

    def block(self, x, w, keys, values, cos, sin, positions):
        sequences, tokens, _ = x.shape

        def turn(v):
            a, b = v.chunk(2, -1)
            return v * cos + torch.cat([-b, a], -1) * sin

        h = F.rms_norm(x, (self.hidden,), w["norm"], self.eps)
        widths = [self.heads * self.head, self.kv_heads * self.head, self.kv_heads * self.head]
        q, k, v = F.linear(h, w["qkv"]).split(widths, -1)
        q, k, v = (t.view(sequences, tokens, -1, self.head).transpose(1, 2) for t in (q, k, v))
        q, k = turn(q), turn(k)
        keys.index_copy_(2, positions, k)
        values.index_copy_(2, positions, v)
        # Prompts begin at position 0: their keys are those of the step. A single token sees the whole cache.
        k, v = (k, v) if tokens > 1 else (keys, values)
        a = F.scaled_dot_product_attention(
            q, k, v, is_causal=tokens > 1, enable_gqa=self.heads != self.kv_heads
        )
        x = x + F.linear(a.transpose(1, 2).reshape(sequences, tokens, -1), w["o"])
        h = F.rms_norm(x, (self.hidden,), w["mlp_norm"], self.eps)
        gate, up = F.linear(h, w["gate_up"]).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, w["down"])

    def step(self, block, tokens, cache, positions):
        """The likeliest next token of each sequence."""
        cos, sin = self.rope(positions)
        x = F.embedding(tokens, self.embedding)
        for w, (keys, values) in zip(self.blocks, cache):
            x = block(x, w, keys, values, cos, sin, positions)
        x = F.rms_norm(x[:, -1], (self.hidden,), self.norm, self.eps)
        return F.linear(x, self.output).float().argmax(-1, keepdim=True)


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run, device, warm_up, times):
    """The median time of a run, each waited for."""
    found = []
    for n in range(warm_up + times):
        wait(device)
        began = time.perf_counter()
        run()
        wait(device)
        if n >= warm_up:
            found.append(time.perf_counter() - began)
    return sorted(found)[len(found) // 2]


def captured(run):
    """The run as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def prefill(model, block, device, sequences, tokens, graph):
    ids = torch.randint(0, model.vocab, (sequences, tokens), device=device)
    cache, positions = model.cache(sequences, tokens), torch.arange(tokens, device=device)
    return seconds(lambda: model.step(block, ids, cache, positions), device, 2, REPEAT)


def decode(model, block, device, sequences, after, graph):
    ids = torch.randint(0, model.vocab, (sequences, 1), device=device)
    cache, positions = model.cache(sequences, after + 1), torch.tensor([after], device=device)
    run = lambda: ids.copy_(model.step(block, ids, cache, positions))
    return seconds(captured(run) if graph else run, device, 3, STEPS)


@torch.inference_mode()
def main(config, results, device="cuda"):
    model = Llama(json.load(open(config)), device)
    found = {"torch": torch.__version__, "model": config, "cases": []}
    compiled = torch.compile(model.block, dynamic=False)
    for kind, measure, sizes in [("prefill", prefill, PREFILL), ("decode", decode, DECODE)]:
        for sequences, tokens in sizes:
            case = {"kind": kind, "sequences": sequences, "tokens" if kind == "prefill" else "after": tokens}
            found["cases"].append(case)
            for name, block in [("eager", model.block), ("compiled", compiled)]:
                graph = name == "compiled" and device == "cuda"
                try:
                    took = measure(model, block, device, sequences, tokens, graph)
                    count = sequences * (tokens if kind == "prefill" else 1)
                    case[name] = {"seconds": took, "tokens_per_second": count / took}
                except Exception as error:  # One that fails must not lose the others.
                    case[name] = {"error": str(error)[:200]}
                json.dump(found, open(results, "w"), indent=1)
            print(case, file=sys.stderr)


main(*sys.argv[1:])
