//! Products with INT4 weights, beside `PyTorch`'s of scaled FP8.

use fireq_gpu::{Dtype, Param};
use fireq_kernels::cuda::cost::choose;
use fireq_kernels::cuda::cost_fp8::{self, CTAS};
use fireq_kernels::cuda::{Linear, LinearFp8, LinearFp8Config, Output, Schedule, params};
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
    let wanted = all.filter(|linear| tokens * linear.outputs() < 1 << 28);
    let records = wanted.clone().map(|linear| product(&linear, tokens));
    let decoded = wanted.filter(|_| tokens >= MANY).flat_map(|linear| {
        configurations(&linear, tokens).into_iter().map(move |config| decoded(&linear, tokens, config))
    });
    // The decoding is the same for any number of tokens, and whatever is written.
    let decoding =
        PRODUCTS.into_iter().filter(|_| tokens == MANY).map(|[channels, cols]| decoding(channels, cols));
    records.chain(decoding).chain(decoded).collect()
}

/// Tokens from which on products with decoded weights are timed.
const MANY: usize = 512;

/// The one that the cost model chooses, and others that differ in what it cannot know: how short sums are, what shared memory
/// has to give, and how much of the end of a tile is hidden.
fn configurations(linear: &Linear, tokens: usize) -> Vec<LinearFp8Config> {
    let linear = LinearFp8::from(*linear);
    let (chosen, _) = cost_fp8::choose(&linear, tokens);
    let tile = |tokens, stages, cluster, promotion| LinearFp8Config {
        tokens,
        stages,
        cluster,
        promotion,
        schedule: Schedule::Together,
    };
    let mut all = vec![chosen];
    if tokens == 4096 {
        let in_turn = LinearFp8Config { schedule: Schedule::Alternately, ..tile(256, 5, 2, 0) };
        all.extend([tile(256, 4, 1, 0), tile(192, 5, 2, 0), tile(192, 5, 2, 1), tile(192, 5, 2, 4)]);
        all.extend([tile(128, 6, 2, 0), tile(128, 6, 2, 1), in_turn]);
        all.sort_unstable();
        all.dedup();
        all.retain(|config| linear.check_config(config).is_ok());
    }
    all
}

fn decoding(channels: usize, cols: usize) -> Timed {
    let linear = Linear::plain(channels, cols, 128);
    let [rows, width] = LinearFp8::from(linear).workspace();
    let operands = |m: &mut Memory| params::DecodeWeight {
        records: m.random("records", Dtype::E4m3, rows / 64 * linear.steps() * record_bytes(linear.group)),
        rows: m.space("workspace", rows * width),
        steps: linear.steps() as u32,
    };
    let work = Work { sizes: format!(" {channels}x{cols}"), ..Work::of(1) };
    timed(linear.decode_unit("timed".into()).unwrap(), &work, operands, super::copy)
}

fn decoded(of: &Linear, tokens: usize, config: LinearFp8Config) -> Timed {
    let (Linear { channels, cols, .. }, linear) = (*of, LinearFp8::from(*of));
    let [rows, width] = linear.workspace();
    let operands = |m: &mut Memory| {
        m.random("x codes", Dtype::E4m3, tokens * cols);
        m.random("decoded weight", Dtype::E4m3, rows * width);
        let [x, weight] = [
            (std::mem::offset_of!(params::LinearFp8, x), linear.x(&config, tokens)),
            (std::mem::offset_of!(params::LinearFp8, weight), linear.weight(&config)),
        ];
        m.maps.push((x.0, Param::TensorMap { buffer: 0, shape: x.1 }));
        m.maps.push((weight.0, Param::TensorMap { buffer: 1, shape: weight.1 }));
        params::LinearFp8 {
            token_scales: m.random("token scales", Dtype::F32, 4 * tokens),
            channel_scales: m.random("channel scales", Dtype::F32, 4 * channels),
            out: m.space("out", linear.output.bytes() * tokens * channels),
            tokens: tokens as u32,
            channels: of.outputs() as u32,
            steps: linear.steps() as u32,
            band: config.band(CTAS) as u32,
            ..params::LinearFp8::default()
        }
    };
    let (sizes, flops) = (format!(" {channels}x{cols}"), 2 * (tokens * cols * channels) as u64);
    let torch = json!({ "tokens": tokens, "cols": cols, "channels": channels });
    let unit = linear.unit(&config, CTAS, "timed".into()).unwrap();
    timed(unit, &Work { sizes, flops, ..Work::of(tokens) }, operands, |_| ("scaled_mm", torch))
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
