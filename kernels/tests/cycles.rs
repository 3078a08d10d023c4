//! `kernels/CYCLES.md`: what the cost models say of the products of known models, to be held against measurements.

use std::fmt::Write;
use std::path::Path;

use fireq_kernels::cuda::cost::{estimate, step_instructions};
use fireq_kernels::cuda::cost_fp8::{self, Way, decode_seconds, paths};
use fireq_kernels::cuda::{Addend, Linear, LinearFp8, Output};
use fireq_kernels::records::record_bytes;

/// Hidden and FFN channels, and channels of queries, keys and values together.
const MODELS: [(&str, [usize; 3]); 3] = [
    ("Llama-2-7B", [4096, 11008, 12288]),
    ("Llama-3-8B", [4096, 14336, 6144]),
    ("Llama-3-70B", [8192, 28672, 10240]),
];
const TOKENS: [usize; 11] = [1, 4, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384];

const HEAD: &str = "\
# On paper

What the cost models ([records](src/cuda/cost.rs), [workspace](src/cuda/cost_fp8.rs)) say of the products of known models on an
H200. **Nothing here is measured**: constants are datasheet values, counts in machine code, or estimates that are marked there; the
table is to be held against the first measurement in [RESULTS.md](RESULTS.md). Weights are INT4 in groups of 128, TB/s is
bytes of their records over time. `cargo test -p fireq-kernels --test cycles` checks that this file is what the models say;
with `INSTA_UPDATE=always` it writes it.

Tokens for 2: two tiles read their tokens once. In bands: CTAs take one tile after another. A step is 128 columns of K for a warp of a
consumer; *issued* are its instructions, of which the integer pipe takes one in two
cycles, beside 24 products that stand for shifts; *tensor* the cycles of its four products on the tensor cores, alone.
";

#[test]
fn cycles_are_what_the_models_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CYCLES.md");
    let text = text();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|how| how == "always") {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == text, "kernels/CYCLES.md is stale: run this with INSTA_UPDATE=always");
}

fn text() -> String {
    let mut text = HEAD.to_string();
    for (model, [hidden, ffn, qkv]) in MODELS {
        writeln!(text, "\n## {model}\n").unwrap();
        writeln!(
            text,
            "| product | tokens | kernel | issued (integer) | tensor | µs | TFLOP/s | TB/s | bound by |"
        )
        .unwrap();
        writeln!(text, "|---|---|---|---|---|---|---|---|---|").unwrap();
        let residual =
            |channels, cols| Linear { addend: Addend::Residual, ..Linear::plain(channels, cols, 128) };
        let gated = Linear { output: Output::Swiglu, ..Linear::plain(2 * ffn, hidden, 128) };
        let products = [
            ("q, k, v", Linear::plain(qkv, hidden, 128)),
            ("o", residual(hidden, hidden)),
            ("gate, up", gated),
            ("down", residual(hidden, ffn)),
        ];
        for (name, linear) in products {
            for tokens in TOKENS {
                text += &row(name, &linear, tokens);
            }
        }
    }
    text
}

/// A kernel, its cycles of a step, its seconds, and what bounds them.
struct Line {
    kernel: String,
    issued: String,
    tensor: usize,
    seconds: f64,
    bound: &'static str,
}

fn line(linear: &Linear, tokens: usize) -> Line {
    let path = paths(linear).into_iter().find(|path| path.to.is_none_or(|to| tokens <= to)).unwrap();
    match path.way {
        Way::Records(config, _) => {
            let (step, estimate) =
                (step_instructions(&config, linear.group), estimate(linear, &config, tokens));
            Line {
                kernel: format!(
                    "{} × {}, K over {}, tokens for {}{}",
                    config.channels(),
                    config.tokens,
                    config.split,
                    config.cluster,
                    if config.band > 0 { ", in bands" } else { "" }
                ),
                issued: format!("{} ({})", step.issued, step.integer),
                tensor: (2 * config.tokens).max(64),
                seconds: estimate.seconds,
                bound: estimate.bound(),
            }
        }
        Way::Workspace(config, ..) => {
            let estimate = cost_fp8::estimate(&LinearFp8::from(*linear), &config, tokens);
            Line {
                kernel: format!(
                    "decode, {} × {}, pairs: {}",
                    config.channels(),
                    config.tokens,
                    config.cluster == 2
                ),
                issued: "–".into(),
                tensor: 2 * config.tokens,
                seconds: decode_seconds(linear) + estimate.seconds,
                bound: estimate.bound(),
            }
        }
    }
}

fn row(name: &str, linear: &Linear, tokens: usize) -> String {
    let Line { kernel, issued, tensor, seconds, bound } = line(linear, tokens);
    let flops = (2 * tokens * linear.channels * linear.cols) as f64;
    let bytes = (linear.channels.div_ceil(64) * linear.steps() * record_bytes(linear.group)) as f64;
    format!(
        "| {name} | {tokens} | {kernel} | {issued} | {tensor} | {:.1} | {:.0} | {:.2} | {bound} |\n",
        seconds * 1e6,
        flops / seconds / 1e12,
        bytes / seconds / 1e12
    )
}
