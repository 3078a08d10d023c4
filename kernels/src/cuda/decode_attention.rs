//! Attention of single tokens over the INT4 pages of the cache (FireQ section 6).
//!
//! Keys and values go from pages through registers into tensor cores, the query heads of a kv head side by side. Scores are
//! the interpreter's to the order of sums; probabilities are rounded under the running maximum of a part of the keys, rounded
//! up to a whole power of two as in [`Prefill`](super::Prefill).

use super::params;
use super::splits::{DecodeAttention, STAGES_BYTES, Split};
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text};
use crate::LaunchShape;
use crate::pages::{Pages, TILE};

/// Four consumer warps and a producer.
const THREADS: usize = 160;
/// Warps of a CTA that combines parts.
const COMBINERS: usize = 4;

impl DecodeAttention {
    /// The pages that it reads.
    pub fn pages(&self) -> Pages {
        Pages { kv_heads: self.kv_heads, head: self.head, keys: self.page }
    }

    /// An error with the reason where there is no such kernel.
    pub fn check(&self) -> Result<(), Unsupported> {
        let DecodeAttention { heads, kv_heads, .. } = *self;
        self.pages().check()?;
        if !heads.is_multiple_of(kv_heads) || heads / kv_heads > 16 || heads == 0 {
            return Err(Unsupported(format!(
                "{heads} query heads over {kv_heads} of keys: up to 16 for each do"
            )));
        }
        Ok(())
    }

    /// Columns of products.
    pub fn queries(&self) -> usize {
        if self.heads / self.kv_heads > 8 { 16 } else { 8 }
    }

    /// Tiles whose softmax is one.
    pub fn step(&self) -> usize {
        if self.head <= 128 { 4 } else { 2 }
    }

    /// Tiles that are on their way or being read: whole steps.
    fn stages(&self) -> usize {
        STAGES_BYTES / self.pages().tile_bytes() / self.step() * self.step()
    }

    /// Bytes of shared memory; mirrored by `DecodeTile` in `kernels/cuda/tile/decode_attention.cuh`.
    pub fn shared(&self) -> usize {
        let (queries, stages) = (self.queries(), self.stages());
        let operands = queries * self.head.next_multiple_of(64) + self.step() * queries * TILE + 16 * queries;
        stages * (self.pages().tile_bytes() + 16) + operands
    }

    /// The unit; rows of a launch are tokens, each of which sees as many keys as there are past, and its own. For tokens of
    /// unequal lengths there is [`DecodeAttention::launch`].
    pub fn unit(&self) -> Result<Unit, Unsupported> {
        self.check()?;
        let DecodeAttention { heads, kv_heads, head, page } = *self;
        let (queries, stages, shared) = (self.queries(), self.stages(), self.shared());
        let name = format!("decode_attention_d{head}_q{queries}_p{page}");
        let cta = Cta { threads: THREADS, cluster: 1, dynamic_shared: shared };
        let tile = format!(
            "using Tile = DecodeTile<PageTile<{head}, {page}>, {queries}, {stages}, {}>;",
            self.step()
        );
        let facts = format!(
            "static_assert(Tile::Page::BYTES == {} && Tile::THREADS == {THREADS} && Tile::SHARED_BYTES == {shared},\n              \
             \"the host sizes pages and launches as the device does\");",
            self.pages().tile_bytes()
        );
        let names = [tile, facts];
        let parts = Parts { name: &name, kernel: "decode_attention", names: &names, arguments: "Tile", cta };
        Ok(Unit {
            text: text::<params::DecodeAttention>(&parts),
            shape: format!("{heads} heads of {head} over {kv_heads}, pages of {page}"),
            config: format!(
                "the heads of a kv head in {queries} columns, tiles of {TILE} keys, {stages} stages, keys split among CTAs"
            ),
            reason: self.reason(),
            cta,
            grid: Grid::Splits(*self),
            name,
        })
    }

    /// The launch on tokens whose keys are split like this.
    pub fn launch(&self, tokens: usize, split: Split) -> LaunchShape {
        LaunchShape {
            grid: [self.kv_heads, tokens, split.parts].map(|n| n as u32),
            block: [THREADS as u32, 1, 1],
            cluster: [1; 3],
            dynamic_shared: self.shared() as u32,
        }
    }

    /// The unit that makes one attention of the parts of split keys; rows are tokens.
    pub fn combine(&self) -> Result<Unit, Unsupported> {
        self.check()?;
        let DecodeAttention { heads, head, .. } = *self;
        let name = format!("combine_d{head}");
        let cta = Cta::of(32 * COMBINERS);
        let arguments = format!("{head}, {COMBINERS}");
        let parts = Parts { name: &name, kernel: "combine", names: &[], arguments: &arguments, cta };
        Ok(Unit {
            text: text::<params::Combine>(&parts),
            shape: format!("{heads} heads of {head}"),
            config: format!("a warp for a token and head, {COMBINERS} of them in a CTA"),
            reason: "parts are few and added in their order, so that results are the same on every run"
                .into(),
            cta,
            grid: Grid::RowParts(heads.div_ceil(COMBINERS)),
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_no_product_has_are_refused() {
        let of = |heads, kv_heads, head| DecodeAttention { heads, kv_heads, head, page: 64 };
        for fits in [
            of(32, 8, 128),
            of(8, 8, 64),
            of(16, 1, 256),
            of(12, 1, 192),
            of(8, 2, 80),
            of(3, 1, 36),
            of(32, 32, 100),
        ] {
            let unit = fits.unit().unwrap();
            assert!(fits.combine().is_ok(), "{fits:?}");
            assert_eq!(unit.launch(3, 999), fits.launch(3, fits.split(&[1000; 3])), "{fits:?}");
        }
        let refused = |of: DecodeAttention| of.unit().unwrap_err().to_string();
        assert!(refused(of(8, 2, 34)).contains("heads of 34 channels"));
        assert!(refused(of(34, 2, 64)).contains("34 query heads over 2"));
        assert!(refused(of(3, 2, 64)).contains("3 query heads over 2"));
        assert!(refused(DecodeAttention { page: 100, ..of(8, 2, 64) }).contains("pages of 100"));
    }
}
