//! The kernel between projections and attention.

use fireq_ir::{DType, Fit};

use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, access, text};

/// Positions of a CTA.
pub const BLOCK: usize = 16;

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
    /// The format of scales in the caches.
    pub scales: DType,
}

impl Qkv {
    /// The unit; heads need a multiple of 4 channels, and at most 256.
    pub fn unit(&self) -> Result<Unit, Unsupported> {
        let Qkv { q_heads, kv_heads, head, k_fit, v_fit, scales } = *self;
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
        let scale = match scales {
            DType::E4M3 => "e4m3",
            DType::BF16 => "bf16",
            DType::F32 => "float",
            other => return Err(Unsupported(format!("scales of {other} in a cache"))),
        };
        let name = format!("qkv_{q_heads}x{kv_heads}x{head}_{}_{}_{scales}", k_fit.name(), v_fit.name());
        let group = format!("using Head = HeadGroup<{head}, {pairs}, {lanes}>;");
        let [k, v] = [k_fit, v_fit].map(|fit| format!("Fit::{}", fit.name().to_uppercase()));
        let arguments = format!("Head, {q_heads}, {kv_heads}, {k}, {v}, {scale}, {scale}");
        let text = text::<params::Qkv>(&Parts {
            name: &name,
            kernel: "qkv",
            names: &[group],
            arguments: &arguments,
            cta: Cta::of(threads),
        });
        Ok(Unit {
            shape: format!("{q_heads} query and {kv_heads} key heads of {head}"),
            config: format!(
                "{threads} threads for a head of {BLOCK} tokens, {lanes} lanes a head, {pairs} pairs a lane"
            ),
            reason: format!(
                "bound by memory: {}, stores of {} bytes of INT4 and {pairs} of FP8; one pass writes codes, caches and the FP8 workspace, 16 values of a channel at once",
                access(4 * pairs),
                if pairs == 16 && (half / pairs).is_multiple_of(2) { 16 } else { pairs / 2 }
            ),
            cta: Cta::of(threads),
            grid: Grid::Heads(q_heads + 2 * kv_heads),
            name,
            text,
        })
    }
}
