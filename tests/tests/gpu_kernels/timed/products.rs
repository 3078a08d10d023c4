//! Products with INT4 weights, beside `PyTorch`'s of scaled FP8.

use fireq_gpu::{Dtype, Param};
use fireq_kernels::cuda::cost::choose;
use fireq_kernels::cuda::{Linear, Output, params};
use fireq_kernels::records::record_bytes;
use serde_json::json;

use super::{FFN, HIDDEN, Memory, Timed, Work, timed};

/// Tokens of a step: where one configuration gives way to another, and far on.
pub const TOKENS: [usize; 7] = [1, 16, 64, 128, 512, 4096, 16384];
/// Output and input channels of products: q, k and v; o; gate and up; down.
const PRODUCTS: [[usize; 2]; 4] = [[6144, HIDDEN], [HIDDEN, HIDDEN], [2 * FFN, HIDDEN], [HIDDEN, FFN]];

/// Products with INT4 weights, as the cost model configures them.
pub fn at(tokens: usize) -> Vec<Timed> {
    // Sums of gate and up for the most tokens are gigabytes that no model asks for at once.
    let bf16 =
        |[channels, cols]: [usize; 2]| Linear { output: Output::Bf16, ..Linear::plain(channels, cols, 128) };
    let gated = Linear { output: Output::Swiglu, ..Linear::plain(2 * FFN, HIDDEN, 128) };
    let all = PRODUCTS.into_iter().map(bf16).chain([gated]);
    all.filter(|linear| tokens * linear.channels < 1 << 28).map(|linear| product(&linear, tokens)).collect()
}

/// `PyTorch`'s writes bf16, too, and leaves gates and ups apart.
fn product(linear: &Linear, tokens: usize) -> Timed {
    let Linear { channels, cols, .. } = *linear;
    let (config, _) = choose(linear, tokens);
    let records = channels / 64 * linear.steps() * record_bytes(linear.group);
    let operands = |m: &mut Memory| {
        m.random("x codes", Dtype::E4m3, tokens * cols);
        let map = Param::TensorMap { buffer: 0, shape: linear.x(&config, tokens) };
        m.maps.push((std::mem::offset_of!(params::Linear, x), map));
        params::Linear {
            // Codes of any bits, scales that are numbers.
            records: m.random("records", Dtype::E4m3, records),
            token_scales: m.random("token scales", Dtype::F32, 4 * tokens),
            channel_scales: m.random("channel scales", Dtype::F32, 4 * channels),
            out: m.space("out", linear.output.bytes() * tokens * channels),
            tokens: tokens as u32,
            channels: linear.outputs() as u32,
            steps: linear.steps() as u32,
            ..params::Linear::default()
        }
    };
    let (sizes, flops) = (format!(" {channels}x{cols}"), 2 * (tokens * cols * channels) as u64);
    let torch = json!({ "tokens": tokens, "cols": cols, "channels": channels });
    let unit = linear.unit(&config, "timed".into()).unwrap();
    timed(unit, &Work { sizes, flops, ..Work::of(tokens) }, operands, |_| ("scaled_mm", torch))
}
