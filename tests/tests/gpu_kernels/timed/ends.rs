//! Behind the last layer: logits, and the tokens that they give.

use fireq_gpu::{Dtype, Init};
use fireq_ir::DType;
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::{logits, sample};
use fireq_runtime::Sampling;
use serde_json::json;

use super::{HIDDEN, Memory, Timed, VOCABULARY, Work, timed};

/// Cases of this many sequences, each of which wants one token.
pub fn at(sequences: usize) -> Vec<Timed> {
    let product = |m: &mut Memory| params::Logits {
        x: m.random("x", Dtype::F32, 4 * sequences * HIDDEN),
        weight: m.random("weight", Dtype::Bf16, 2 * VOCABULARY * HIDDEN),
        scales: 0,
        out: m.space("out", 4 * sequences * VOCABULARY),
        tokens: sequences as u32,
        channels: VOCABULARY as u32,
    };
    let at_once = if sequences == 1 { 1 } else { 8 };
    let flops = 2 * (sequences * HIDDEN * VOCABULARY) as u64;
    let unit = logits(HIDDEN, VOCABULARY, DType::BF16, at_once).unwrap();
    let sizes = json!({ "tokens": sequences, "cols": HIDDEN, "channels": VOCABULARY });
    let product = timed(unit, &Work { flops, ..Work::of(sequences) }, product, |_| ("logits", sizes));
    let samples = [("", 0.0, 1.0), (" at random", 0.1, 1.0), (" with top-p 0.9", 0.1, 0.9)];
    let samples = samples.map(|(name, temperature, top_p)| sampled(sequences, name, temperature, top_p));
    std::iter::once(product).chain(samples).collect()
}

/// Tokens of logits between −1 and 1; temperature 0 takes the likeliest.
fn sampled(sequences: usize, name: &str, temperature: f32, top_p: f32) -> Timed {
    let draws = |m: &mut Memory| {
        let sampling = |row: usize| match temperature {
            0.0 => Sampling::Greedy,
            _ => Sampling::Random { temperature, top_p, seed: row as u64 },
        };
        let bytes: Vec<u8> = (0..sequences).flat_map(|row| sampling(row).draw(0).bytes()).collect();
        params::Sample {
            x: m.random("x", Dtype::F32, 4 * sequences * VOCABULARY),
            draws: m.put("draws", bytes.len(), Init::Data(bytes)),
            index: m.space("index", 4 * sequences),
        }
    };
    let work = Work { sizes: name.into(), ..Work::of(sequences) };
    let sizes =
        json!({ "tokens": sequences, "cols": VOCABULARY, "temperature": temperature, "top_p": top_p });
    timed(sample(VOCABULARY), &work, draws, |_| ("sample", sizes))
}
