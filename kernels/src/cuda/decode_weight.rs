//! INT4 weights as the E4M3 numbers that products look up: decoded once for all tokens of a large prefill.

use super::epilogue::Addend;
use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, text};
use super::{Linear, LinearFp8};
use crate::records::{COLS, ROWS};

/// Threads of a CTA: 128 for each of the two records of 128 rows.
const THREADS: usize = 256;
/// Rows of a CTA. Records of rows come in pairs.
const PAIR: usize = 2 * ROWS;

impl Linear {
    /// The unit that decodes the weight's records into the workspace of [`LinearFp8`]: the contract's numbers, but that a zero may
    /// have another sign.
    pub fn decode_unit(&self, reason: String) -> Result<Unit, Unsupported> {
        Linear { addend: Addend::Nothing, ..*self }.check()?;
        let [rows, cols] = LinearFp8::from(*self).workspace();
        let name = format!("decode_weight_g{}", self.group);
        let cta = Cta::of(THREADS);
        Ok(Unit {
            text: text::<params::DecodeWeight>(&Parts {
                name: &name,
                kernel: "decode_weight",
                names: &[],
                arguments: &self.group.to_string(),
                cta,
            }),
            shape: format!("{} channels of {} i4 in groups of {}", self.channels, self.cols, self.group),
            config: format!(
                "records of {PAIR} channels and {COLS} columns, {THREADS} threads, workspace of {} KiB",
                (rows * cols).div_ceil(1024)
            ),
            reason,
            cta,
            grid: Grid::Fixed([cols / COLS, rows / PAIR]),
            name,
        })
    }
}
