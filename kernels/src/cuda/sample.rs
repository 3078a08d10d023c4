//! The choice of a token.

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, access, layout, text};

const MOST_THREADS: usize = 1024;

/// One token for each row of `cols` logits: the likeliest, or a random one, as the row's [`params::Draw`] has it.
pub fn sample(cols: usize) -> Unit {
    let threads = cols.div_ceil(4).next_multiple_of(32).clamp(32, MOST_THREADS);
    let name = format!("sample_{cols}");
    let arguments = format!("{cols}, {threads}");
    let draw = format!("using Draw = sample::Draw;\n{}", layout::<params::Draw>("Draw").trim_end());
    let text = text::<params::Sample>(&Parts {
        name: &name,
        kernel: "sample",
        names: &[draw],
        arguments: &arguments,
        cta: Cta::of(threads),
    });
    let bytes = if cols.is_multiple_of(4) { 16 } else { 4 };
    Unit {
        shape: format!("rows of {cols}"),
        config: format!("{threads} threads for a row, 4 logits and one Philox counter at once"),
        reason: format!(
            "few rows, read once unless top-p cuts them, then six times from the cache: {}",
            access(bytes)
        ),
        cta: Cta::of(threads),
        grid: Grid::Rows,
        name,
        text,
    }
}
