//! The kernel that makes the table of cosines and sines, once per step.

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text};

const THREADS: usize = 128;

/// The table for heads of `head` channels.
pub fn rope_table(head: usize) -> Result<Unit, Unsupported> {
    if head == 0 || !head.is_multiple_of(2) {
        return Err(Unsupported(format!("heads of {head} channels have no pairs")));
    }
    let name = format!("rope_table_{head}");
    let arguments = format!("{head}, {THREADS}");
    let text = text::<params::RopeTable>(&Parts {
        name: &name,
        kernel: "rope_table",
        names: &[],
        arguments: &arguments,
        cta: Cta::of(THREADS),
    });
    Ok(Unit {
        shape: format!("heads of {head}"),
        config: format!("{THREADS} threads, an angle each"),
        reason: "once per step; angles are reduced in f64, without local memory".into(),
        cta: Cta::of(THREADS),
        grid: Grid::Elements { cols: head / 2, per_cta: THREADS },
        name,
        text,
    })
}
