//! The kernel that gathers rows of a table: the token embedding, and rows whose logits are wanted.

use fireq_ir::DType;

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, access, chunk, float_name, text};

const MOST_THREADS: usize = 256;

/// Rows of `cols` numbers of a table in `table`.
pub fn gather(cols: usize, table: DType) -> Result<Unit, Unsupported> {
    let bytes = table.bits() / 8;
    let chunk = if bytes == 4 { chunk(cols, &[4, 2]) } else { chunk(cols, &[8, 4, 2]) };
    let threads = cols.div_ceil(chunk).next_multiple_of(32).clamp(32, MOST_THREADS);
    let name = format!("gather_{table}_{cols}");
    let arguments = format!("{}, {cols}, {threads}, {chunk}", float_name(table)?);
    let text = text::<params::Gather>(&Parts {
        name: &name,
        kernel: "gather",
        names: &[],
        arguments: &arguments,
        cta: Cta::of(threads),
    });
    Ok(Unit {
        shape: format!("rows of {cols} {table}"),
        config: format!("{threads} threads, {chunk} numbers each"),
        reason: format!("bound by memory: {}", access(bytes * chunk)),
        cta: Cta::of(threads),
        grid: Grid::RowParts(cols.div_ceil(threads * chunk)),
        name,
        text,
    })
}
