//! The product with float weights, or with E4M3 ones that have a scale for each channel: logits.

use fireq_ir::DType;

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, access, chunk, float_name, text};

const THREADS: usize = 256;
/// Output channels of a warp: what a token's numbers are loaded for.
const ROWS: usize = 4;

/// `x · weightᵀ` for weights `[channels, cols]` in `weight` and up to `tokens` tokens at once.
pub fn logits(cols: usize, channels: usize, weight: DType, tokens: usize) -> Result<Unit, Unsupported> {
    let rows = if channels < ROWS { 1 } else { ROWS };
    let bytes = weight.bits() / 8;
    let sizes: &[usize] = match bytes {
        4 => &[4, 2],
        2 => &[8, 4, 2],
        _ => &[16, 8, 4, 2],
    };
    let chunk = chunk(cols, sizes);
    let name = format!("logits_{weight}_{channels}x{cols}_t{tokens}");
    let format = if weight == DType::E4M3 { "e4m3" } else { float_name(weight)? };
    let arguments = format!("{format}, {cols}, {THREADS}, {chunk}, {rows}, {tokens}");
    let text = text::<params::Logits>(&Parts {
        name: &name,
        kernel: "logits",
        names: &[],
        arguments: &arguments,
        cta: Cta::of(THREADS),
    });
    Ok(Unit {
        shape: format!("{channels} channels of {cols} {weight}, tokens at once: {tokens}"),
        config: format!("{THREADS} threads, a warp for {rows} channels; f32 sums"),
        reason: format!("few rows are wanted, so that weights bound it: {}", access(bytes * chunk)),
        cta: Cta::of(THREADS),
        grid: Grid::Tiles { channels: channels.div_ceil(THREADS / 32 * rows), tokens },
        name,
        text,
    })
}
