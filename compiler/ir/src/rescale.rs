//! Codes that stay what they are, under scales of another format.
//!
//! A row of I4 codes under scales s becomes the same codes under `c · σ` (FireQ section 2): an f32 `c` for the row, E4M3 scales
//! σ for its groups. What a code q stands for is then `c · rn8(q·σ)`, and c and σ are chosen for the least squared error against
//! `s·q`, over the codes that are there. For σ of one significand the errors of all octaves are alike, so that a group is looked at
//! once for each of the eight significands.

use rayon::prelude::*;

use crate::quant::{PIECE, Quantized, WEIGHT_SCALE_TOP, element};
use crate::{DType, Format, e4m3};

/// Outer scales that are tried, an equal ratio apart: an octave of them, since the next one has the same significands.
const OUTER: usize = 32;

/// The codes of `q`, which has one level of scales, under the two levels of `to`, whose groups lie inside of those of `q`; each
/// row times its number in `rows`. Rows do not depend on each other.
pub(crate) fn rescale(q: &Quantized, to: &Format, rows: Option<&[f32]>) -> Quantized {
    let (from, inner) = (q.format.scheme.0[0], to.scheme.0[0]);
    let (cols, count, groups) = (q.cols, from.count(q.cols), inner.count(q.cols));
    let mut scales = vec![vec![0.0; q.rows() * groups], vec![1.0; q.rows()]];
    let (sigmas, outer) = scales.split_at_mut(1);
    let one = |((row, sigmas), outer): ((usize, &mut [f32]), &mut f32)| {
        let factor = rows.map_or(1.0, |rows| rows[row]);
        let codes = q.codes[row * cols..][..cols].chunks(inner.extent(cols)).enumerate();
        let scale = |n: usize| q.scales[0][row * count + n * inner.extent(cols) / from.extent(cols)];
        let groups: Vec<Group> = codes.map(|(n, codes)| Group::new(codes, scale(n) * factor)).collect();
        *outer = rescale_row(&groups, sigmas);
    };
    let piece = (PIECE / cols.max(1)).max(1);
    let work = sigmas[0].par_chunks_mut(groups).enumerate().zip(outer[0].par_iter_mut());
    work.with_min_len(piece).for_each(one);
    Quantized { format: to.clone(), cols, codes: q.codes.clone(), scales }
}

/// Fills in σ of each group and returns c.
fn rescale_row(groups: &[Group], sigmas: &mut [f32]) -> f32 {
    let largest = groups.iter().fold(0.0f32, |largest, group| largest.max(group.scale.abs()));
    let top = largest / WEIGHT_SCALE_TOP;
    if top < f32::MIN_POSITIVE {
        return 1.0;
    }
    let tried = (0..OUTER).map(|n| f64::from(top) * (n as f64 / OUTER as f64).exp2());
    let errors = tried.map(|outer| (groups.iter().map(|group| group.best(outer).error).sum::<f64>(), outer));
    let best = errors.reduce(|best, next| if next.0 < best.0 { next } else { best });
    let outer = best.map_or(f64::from(top), |(_, outer)| outer);
    let chosen: Vec<Choice> = groups.iter().map(|group| group.best(outer)).collect();
    sigmas.iter_mut().zip(&chosen).for_each(|(sigma, choice)| *sigma = choice.sigma);
    // The best for these σ.
    let (dot, square) =
        chosen.iter().fold((0.0, 0.0), |sum, choice| (sum.0 + choice.dot, sum.1 + choice.square));
    if square > 0.0 { (dot / square) as f32 } else { outer as f32 }
}

/// The codes of a group and their scale, as far as errors depend on them.
struct Group {
    scale: f32,
    /// How often each code occurs, −8 first.
    counts: [f64; 16],
    /// Σ q².
    squares: f64,
    /// Σ q·t and Σ t² for the table entries t of σ = 1, 9/8, … 15/8.
    tables: [(f64, f64); 8],
}

/// A σ for a group under an outer scale c.
struct Choice {
    sigma: f32,
    /// Σ (s·q − c·t)².
    error: f64,
    /// Σ s·q·t.
    dot: f64,
    /// Σ t².
    square: f64,
}

impl Group {
    fn new(codes: &[i8], scale: f32) -> Self {
        let mut counts = [0u32; 16];
        for code in codes {
            counts[(code + 8) as usize & 15] += 1;
        }
        let counts = counts.map(f64::from);
        let squares = (0..16).map(|n| counts[n] * (n as f64 - 8.0).powi(2)).sum();
        let tables = std::array::from_fn(|n| sums(&counts, 1.0 + n as f32 / 8.0));
        Group { scale, counts, squares, tables }
    }

    /// The better of the two σ beside s/c.
    fn best(&self, outer: f64) -> Choice {
        let wanted = (f64::from(self.scale.abs()) / outer) as f32;
        let nearest = e4m3::round(wanted);
        let code = e4m3::encode(nearest);
        let beside = if nearest > wanted { code.saturating_sub(1) } else { code + 1 };
        let [a, b] = [nearest, e4m3::decode(beside)].map(|sigma| self.choice(sigma, outer));
        if b.sigma <= e4m3::MAX && b.error < a.error { b } else { a }
    }

    fn choice(&self, sigma: f32, outer: f64) -> Choice {
        let (dot, square) = self.sums(sigma);
        let scale = f64::from(self.scale.abs());
        let error = scale * scale * self.squares - 2.0 * scale * outer * dot + outer * outer * square;
        Choice { sigma: if self.scale < 0.0 { -sigma } else { sigma }, error, dot: scale * dot, square }
    }

    /// Σ q·t and Σ t² for the table entries t of a positive σ.
    fn sums(&self, sigma: f32) -> (f64, f64) {
        let code = e4m3::encode(sigma);
        // Of these, products are normal numbers, and none saturates.
        if !(f32::powi(2.0, -6)..=WEIGHT_SCALE_TOP).contains(&sigma) {
            return sums(&self.counts, sigma);
        }
        let octave = f64::from(sigma) / (1.0 + f64::from(code & 7) / 8.0);
        let (dot, square) = self.tables[usize::from(code & 7)];
        (dot * octave, square * octave * octave)
    }
}

fn sums(counts: &[f64; 16], sigma: f32) -> (f64, f64) {
    counts.iter().enumerate().fold((0.0, 0.0), |(dot, square), (n, count)| {
        let code = n as i8 - 8;
        let entry = f64::from(element(code, sigma, DType::I4, DType::E4M3));
        (dot + count * f64::from(code) * entry, square + count * entry * entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Level, Per, Scheme};

    fn holding(per: Per, cols: usize, codes: Vec<i8>, scales: Vec<f32>) -> Quantized {
        let format = Format { dtype: DType::I4, scheme: Scheme(vec![Level { per, dtype: DType::F32 }]) };
        Quantized { format, cols, codes, scales: vec![scales] }
    }

    fn codes(n: usize) -> Vec<i8> {
        (0..n).map(|i| ((i * i + i / 7) % 16) as i8 - 8).collect()
    }

    fn error(a: &Quantized, b: &Quantized) -> f64 {
        let (a, b) = (a.dequantize(), b.dequantize());
        let squares = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        (squares / a.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>()).sqrt()
    }

    #[test]
    fn a_scale_of_a_whole_row_is_kept_exactly() {
        for scale in [0.0123, -7.5, 3e-6, 1e5] {
            let q = holding(Per::Row, 256, codes(256), vec![scale]);
            let rescaled = rescale(&q, &Format::weight(128), None);
            assert_eq!(rescaled.codes, q.codes);
            let top = WEIGHT_SCALE_TOP * f32::signum(scale);
            assert_eq!(rescaled.scales, [vec![top, top], vec![scale.abs() / WEIGHT_SCALE_TOP]]);
        }
    }

    #[test]
    fn codes_stay_and_scales_come_as_near_as_they_can() {
        let scales: Vec<f32> = (0..32).map(|n| 0.01 * 1.09f32.powi(n * 5 % 17)).collect();
        let q = holding(Per::Group(128), 1024, codes(4 * 1024), scales);
        let rescaled = rescale(&q, &Format::weight(128), None);
        assert_eq!(rescaled.codes, q.codes);
        let found = error(&q, &rescaled);
        // Scales as they come, under the outer scale of the largest.
        let mut plain = rescaled.clone();
        for row in 0..4 {
            let of_row = &q.scales[0][row * 8..][..8];
            let top = of_row.iter().fold(0.0f32, |m, s| m.max(*s)) / WEIGHT_SCALE_TOP;
            plain.scales[1][row] = top;
            let sigmas = plain.scales[0][row * 8..][..8].iter_mut().zip(of_row);
            sigmas.for_each(|(sigma, s)| *sigma = e4m3::round(s / top));
        }
        let naive = error(&q, &plain);
        assert!(found < 0.9 * naive && found < 0.03, "{found} beside {naive}");
    }

    #[test]
    fn rows_are_multiplied_and_groups_divided() {
        let q = holding(Per::Group(64), 128, codes(256), vec![0.5, 0.25, 1.0, 2.0]);
        let whole = rescale(&q, &Format::weight(32), None);
        assert_eq!(whole.dequantize(), q.dequantize(), "powers of two are exact");
        let halved = rescale(&q, &Format::weight(32), Some(&[0.5, -2.0]));
        let expected: Vec<f32> =
            q.dequantize().iter().enumerate().map(|(n, w)| w * if n < 128 { 0.5 } else { -2.0 }).collect();
        assert_eq!(halved.dequantize(), expected);
    }

    #[test]
    fn zeros_and_tiny_groups_beside_large_ones_stay_finite() {
        let q = holding(Per::Group(32), 64, codes(128), vec![0.0, 0.0, 1.0, 1e-9]);
        let rescaled = rescale(&q, &Format::weight(32), None);
        assert!(rescaled.dequantize().iter().all(|w| w.is_finite()));
        assert_eq!(rescaled.dequantize()[..64], vec![0.0; 64][..]);
        assert_eq!(rescaled.codes, q.codes);
    }

    #[test]
    fn sums_of_an_octave_are_those_of_any() {
        let group = Group::new(&codes(128), 1.0);
        for code in 1..0x7f {
            let sigma = e4m3::decode(code);
            assert_eq!(group.sums(sigma), sums(&group.counts, sigma), "{sigma}");
        }
    }
}
