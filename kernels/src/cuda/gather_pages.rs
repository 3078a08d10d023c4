//! Earlier keys and values for prefill: from INT4 pages into the FP8 workspace.

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text};
use crate::pages::{Pages, TILE};

/// Threads of a CTA: lanes of the pages' order.
const THREADS: usize = 128;

/// The unit that writes what `Qkv` writes for the tokens of a step, but that a zero may have another sign. Launches have no
/// rows of their own: they copy what is past.
pub fn gather_pages(pages: Pages) -> Result<Unit, Unsupported> {
    pages.check()?;
    let Pages { kv_heads, head, keys } = pages;
    let name = format!("gather_pages_d{head}_p{keys}");
    let page = format!("using Page = PageTile<{head}, {keys}>;");
    let facts = format!(
        "static_assert(Page::BYTES == {}, \"the host lays pages out as the device does\");",
        pages.tile_bytes()
    );
    let cta = Cta::of(THREADS);
    let parts = Parts { name: &name, kernel: "gather_pages", names: &[page, facts], arguments: "Page", cta };
    Ok(Unit {
        text: text::<params::GatherPages>(&parts),
        shape: format!("{kv_heads} heads of {head}, pages of {keys}"),
        config: format!("{THREADS} threads for keys or values of {TILE} positions and 64 channels"),
        reason: "bound by memory: every code is read once, in 16 bytes, and decoded once for all queries of a step"
            .into(),
        cta,
        grid: Grid::Tiles64 { heads: kv_heads, parts: 2 * head.div_ceil(64) },
        name,
    })
}
