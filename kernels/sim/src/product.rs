//! What tensor cores add up.

use crate::launch::Accumulator;

/// Sums of products and of what was there before: `left` is m × k, `right` k × n, `old` and the result m × n; m and n
/// are multiples of four.
pub(crate) fn multiply_add(
    left: &[f64],
    right: &[f64],
    k: usize,
    old: &[f32],
    mode: Accumulator,
) -> Vec<f32> {
    let n = right.len() / k;
    match mode {
        Accumulator::Exact => {
            let sums = products(left, right, k);
            sums.iter().zip(old).map(|(sum, old)| (sum + f64::from(*old)) as f32).collect()
        }
        Accumulator::Truncated { fraction_bits } => {
            let mut terms = vec![0.0; k + 1];
            let mut one = |(i, old): (usize, &f32)| {
                let (row, column) = (&left[i / n * k..][..k], i % n);
                for (j, (term, a)) in terms.iter_mut().zip(row).enumerate() {
                    *term = a * right[j * n + column];
                }
                terms[k] = f64::from(*old);
                truncated_sum(&terms, fraction_bits)
            };
            old.iter().enumerate().map(&mut one).collect()
        }
    }
}

/// Rows and columns of a block whose sums stay in registers.
const BLOCK: usize = 4;

/// Products of matrices with sums in f64, each in the order of k.
fn products(left: &[f64], right: &[f64], k: usize) -> Vec<f64> {
    let n = right.len() / k;
    let mut sums = vec![0.0; left.len() / k * n];
    for (rows, sums) in left.chunks_exact(BLOCK * k).zip(sums.chunks_exact_mut(BLOCK * n)) {
        for column in (0..n).step_by(BLOCK) {
            let mut block = [[0.0; BLOCK]; BLOCK];
            for (i, right) in right.chunks_exact(n).enumerate() {
                let right: &[f64] = &right[column..column + BLOCK];
                for (r, block) in block.iter_mut().enumerate() {
                    let a = rows[r * k + i];
                    block.iter_mut().zip(right).for_each(|(sum, b)| *sum += a * b);
                }
            }
            for (r, block) in block.iter().enumerate() {
                sums[r * n + column..][..BLOCK].copy_from_slice(block);
            }
        }
    }
    sums
}

/// Terms are aligned at the largest exponent and cut off this many bits below it; the sum is cut off to as many bits.
fn truncated_sum(terms: &[f64], fraction_bits: u32) -> f32 {
    let top = terms.iter().fold(0f64, |top, term| top.max(term.abs()));
    let exact: f64 = terms.iter().sum();
    if top == 0.0 || !exact.is_finite() {
        return exact as f32;
    }
    let sum: f64 = terms.iter().map(|term| cut(*term, top, fraction_bits)).sum();
    cut(sum, sum, fraction_bits) as f32
}

/// Rounds towards zero to a multiple of the bit that is `fraction_bits` below the leading one of `top`.
fn cut(x: f64, top: f64, fraction_bits: u32) -> f64 {
    if top == 0.0 {
        return x;
    }
    let exponent = (top.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let quantum = 2f64.powi(exponent - fraction_bits as i32);
    (x / quantum).trunc() * quantum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_drops_what_lies_below_the_largest_exponent() {
        let bit = |e: i32| 2f64.powi(e);
        // 13 bits below 1: 2^-13 stays, anything smaller goes, of either sign.
        assert_eq!(truncated_sum(&[1.0, bit(-13)], 13), 1.0 + bit(-13) as f32);
        assert_eq!(truncated_sum(&[1.0, bit(-14)], 13), 1.0);
        assert_eq!(truncated_sum(&[1.0, bit(-14)], 14), 1.0 + bit(-14) as f32);
        assert_eq!(truncated_sum(&[1.0, -bit(-14)], 13), 1.0);
        // Each term is cut off by itself: two halves of a bit are not one.
        assert_eq!(truncated_sum(&[1.0, bit(-14), bit(-14)], 13), 1.0);
        assert_eq!(truncated_sum(&[1.0, 1.5 * bit(-13)], 13), 1.0 + bit(-13) as f32);
        // A product below an old sum of 4096 = 2^12 keeps no more than halves.
        assert_eq!(truncated_sum(&[0.75, 4096.0], 13), 4096.5);
        // The sum of 1.5 and 1.5 + 2^-13 has its leading bit one higher, and one bit less at the end.
        assert_eq!(truncated_sum(&[1.5, 1.5 + bit(-13)], 13), 3.0);
        // What cancels leaves the cut remainder.
        assert_eq!(truncated_sum(&[1.0, -1.0, bit(-20)], 13), 0.0);
        assert_eq!(truncated_sum(&[0.0, -0.0], 13), 0.0);
        assert!(truncated_sum(&[1.0, f64::NAN], 13).is_nan());
        assert_eq!(truncated_sum(&[1.0, f64::NEG_INFINITY], 13), f32::NEG_INFINITY);
    }

    #[test]
    fn with_enough_bits_truncated_sums_are_exact_ones() {
        let value = |i: usize, seed: usize| ((i * 37 + seed) % 29) as f64 - 14.0;
        let (m, n, k) = (8, 12, 5);
        let left: Vec<f64> = (0..m * k).map(|i| value(i, 3)).collect();
        let right: Vec<f64> = (0..k * n).map(|i| value(i, 11)).collect();
        let old: Vec<f32> = (0..m * n).map(|i| value(i, 20) as f32).collect();
        let exact = multiply_add(&left, &right, k, &old, Accumulator::Exact);
        for (i, found) in exact.iter().enumerate() {
            let products = (0..k).map(|j| left[i / n * k + j] * right[j * n + i % n]);
            assert_eq!(f64::from(*found), products.sum::<f64>() + f64::from(old[i]));
        }
        let truncated = Accumulator::Truncated { fraction_bits: 20 };
        assert_eq!(multiply_add(&left, &right, k, &old, truncated), exact);
    }
}
