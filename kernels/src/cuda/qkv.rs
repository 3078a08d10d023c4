//! The kernel between projections and attention.

use fireq_ir::Fit;

use super::params::{self, Run};
use super::sequence::Sequence;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, access, layout, text};
use crate::pages::Pages;

/// Positions of a CTA, at most.
pub const BLOCK: usize = 16;

/// The runs of a step: as many as the launch has rows. The n-th sequence has the n-th table of pages.
pub fn runs(sequences: &[Sequence]) -> Vec<Run> {
    let mut runs = vec![];
    for (n, Sequence { query, tokens, past, key }) in sequences.iter().enumerate() {
        let (mut token, mut position, end) = (*query, *past, past + tokens);
        while position < end {
            let count = (BLOCK - position % BLOCK).min(end - position);
            let [sequence, token_at, position_at, count_of, key] =
                [n, token, position, count, *key].map(|n| n as u32);
            runs.push(Run { sequence, token: token_at, position: position_at, count: count_of, key });
            (position, token) = (position + count, token + count);
        }
    }
    runs
}

/// What the kernel is specialized for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qkv {
    /// Query heads.
    pub q_heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head: usize,
    /// How scales of keys are chosen.
    pub k_fit: Fit,
    /// How scales of values are chosen.
    pub v_fit: Fit,
    /// Positions of a page.
    pub page: usize,
}

impl Qkv {
    /// The pages that it writes.
    pub fn pages(&self) -> Pages {
        Pages { kv_heads: self.kv_heads, head: self.head, keys: self.page }
    }

    /// The unit; heads need a multiple of 4 channels, and at most 256.
    pub fn unit(&self) -> Result<Unit, Unsupported> {
        let Qkv { q_heads, kv_heads, head, k_fit, v_fit, page } = *self;
        self.pages().check()?;
        let half = head / 2;
        // Sixteen E4M3 codes are one store; a warp has at least two lanes for each of its tokens.
        let fits = |pairs: &usize| half.is_multiple_of(*pairs) && half >= 2 * pairs;
        let pairs = [16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
        if !head.is_multiple_of(4) || head == 0 || head > 256 || half / pairs > 32 {
            return Err(Unsupported(format!(
                "heads of {head} channels: multiples of 4 up to 128, of 8 up to 256 do"
            )));
        }
        let lanes = (half / pairs).next_power_of_two();
        let threads = BLOCK * lanes;
        let name = format!("qkv_{q_heads}x{kv_heads}x{head}_{}_{}_p{page}", k_fit.name(), v_fit.name());
        let group = format!("using Head = HeadGroup<{head}, {pairs}, {lanes}>;");
        let [k, v] = [k_fit, v_fit].map(|fit| format!("Fit::{}", fit.name().to_uppercase()));
        let arguments = format!("Head, {q_heads}, {kv_heads}, {k}, {v}, {page}");
        let run = format!("using Run = qkv::Run;\n{}", layout::<Run>("Run").trim_end());
        let text = text::<params::Qkv>(&Parts {
            name: &name,
            kernel: "qkv",
            names: &[group, run],
            arguments: &arguments,
            cta: Cta::of(threads),
        });
        Ok(Unit {
            shape: format!("{q_heads} query and {kv_heads} key heads of {head}"),
            config: format!(
                "{threads} threads for a head of {BLOCK} positions, {lanes} lanes a head, {pairs} pairs a lane, pages of {page}"
            ),
            reason: format!(
                "bound by memory: {}, stores of 16 bytes of pages and {pairs} of FP8; one pass writes codes, pages and the FP8 workspace, 16 values of a channel at once",
                access(4 * pairs)
            ),
            cta: Cta::of(threads),
            grid: Grid::RowParts(q_heads + 2 * kv_heads),
            name,
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_where_blocks_do() {
        let of = |[query, tokens, past, key]: [usize; 4]| Sequence { query, tokens, past, key };
        let found = runs(&[[0, 19, 14, 0], [19, 0, 5, 48], [19, 1, 16, 64], [20, 16, 0, 96]].map(of));
        let run =
            |[sequence, token, position, count, key]: [u32; 5]| Run { sequence, token, position, count, key };
        let expected =
            [[0, 0, 14, 2, 0], [0, 2, 16, 16, 0], [0, 18, 32, 1, 0], [2, 19, 16, 1, 64], [3, 20, 0, 16, 96]];
        assert_eq!(found, expected.map(run));
    }
}
