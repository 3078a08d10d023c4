//! The choice of the likeliest token.

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, access, chunk, text};

const MOST_THREADS: usize = 1024;

/// The largest of `cols` numbers of each row.
pub fn argmax(cols: usize) -> Unit {
    let chunk = chunk(cols, &[4, 2]);
    let threads = (cols / chunk).next_multiple_of(32).clamp(32, MOST_THREADS);
    let name = format!("argmax_{cols}");
    let arguments = format!("{cols}, {threads}, {chunk}");
    let text = text::<params::Argmax>(&Parts {
        name: &name,
        kernel: "argmax",
        names: &[],
        arguments: &arguments,
        cta: Cta::of(threads),
    });
    Unit {
        shape: format!("rows of {cols}"),
        config: format!("{threads} threads for a row, {chunk} numbers at once"),
        reason: format!("one token at a time is sampled: {}", access(4 * chunk)),
        cta: Cta::of(threads),
        grid: Grid::Rows,
        name,
        text,
    }
}
