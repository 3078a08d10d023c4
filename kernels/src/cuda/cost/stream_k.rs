//! What a share of the work for each SM, whole tiles or not (stream-K), would gain over clusters that share out a tile's columns:
//! `cargo test -p fireq-kernels stream_k -- --nocapture` prints it for products of known models.

use super::super::epilogue::{Addend, Output};
use super::*;

/// Hidden and FFN channels, and channels of queries, keys and values together.
const MODELS: [(&str, [usize; 3]); 3] = [
    ("Llama-2-7B", [4096, 11008, 12288]),
    ("Llama-3-8B", [4096, 14336, 6144]),
    ("Llama-3-70B", [8192, 28672, 10240]),
];
/// A gain that is worth a second way of sharing out work.
const WORTH: f64 = 0.05;

/// What a product takes where every CTA, `at_once` on each SM, has the same number of steps, however tiles begin and end. A tile's
/// sums that another CTA goes on with travel through the cache, once each way, behind a flag.
fn shared_out(linear: &Linear, config: &LinearConfig, at_once: usize, tokens: usize) -> f64 {
    let tiles = linear.channels.div_ceil(config.channels()) * tokens.div_ceil(config.tokens);
    let ctas = (SMS * at_once) as f64;
    let steps = (tiles * linear.steps()) as f64 / ctas;
    let warpgroups = (at_once * config.warpgroups) as f64;
    let cycles = (steps * tensor_cycles(config, warpgroups))
        .max(steps * decode_cycles(config, linear.group, warpgroups))
        .max(steps * arrival_cycles(config, linear.group, at_once))
        .max(steps * shared_cycles(config, linear.group, at_once));
    let sums = (at_once * config.tokens * config.channels() * 4) as f64;
    let whole = (tiles as f64 / ctas).fract() == 0.0;
    let (handed, on_the_way) = if whole {
        (0.0, 0.0)
    } else {
        (2.0 * sums * SMS as f64 / L2, 2.0 * LATENCY + 2.0 * sums / SM_BYTES)
    };
    let ends = begin_cycles(config, linear.group, at_once) + out_cycles(linear, config, at_once) + on_the_way;
    (memory_seconds(linear, config, tokens) + handed).max(cycles / CLOCK) + ends / CLOCK
}

/// The quickest of all configurations.
fn quickest(linear: &Linear, tokens: usize) -> f64 {
    let all = candidates(linear, tokens)
        .filter(|c| c.cluster == 1 && c.band == 0)
        .map(|c| LinearConfig { split: 1, ..c });
    let at_once = |c: &LinearConfig| 1..=resident(c, linear.group);
    all.flat_map(|c| at_once(&c).map(move |n| (c, n)))
        .map(|(c, n)| shared_out(linear, &c, n, tokens))
        .fold(f64::INFINITY, f64::min)
}

#[test]
fn stream_k_gains_less_than_it_costs() {
    let mut most: f64 = 0.0;
    for (model, [hidden, ffn, qkv]) in MODELS {
        let residual = |cols| Linear { addend: Addend::Residual, ..Linear::plain(hidden, cols, 128) };
        let products = [
            ("q, k, v", Linear::plain(qkv, hidden, 128)),
            ("o", residual(hidden)),
            ("gate, up", Linear { output: Output::Swiglu, ..Linear::plain(2 * ffn, hidden, 128) }),
            ("down", residual(ffn)),
        ];
        for (name, linear) in products {
            for tokens in [1, 8, 16, 32, 64] {
                let now = candidates(&linear, tokens).map(|c| estimate(&linear, &c, tokens).seconds);
                let now = now.fold(f64::INFINITY, f64::min);
                let then = quickest(&linear, tokens);
                let (micro, gain) = ([now * 1e6, then * 1e6], now / then - 1.0);
                eprintln!(
                    "{model:12} {name:9}{tokens:3} tokens: {:6.2} µs, stream-K {:6.2} µs: {:5.1} %",
                    micro[0],
                    micro[1],
                    100.0 * gain
                );
                most = most.max(gain);
            }
        }
    }
    assert!(most < WORTH, "stream-K gains {:.1} %", 100.0 * most);
}
