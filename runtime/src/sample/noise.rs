//! Random numbers that depend on a seed, a step and a token only, and the logarithms and powers that sampling needs: single
//! f32 operations in a fixed order, so that they have the same bits on every device. `kernels/cuda/tile/noise.cuh` is
//! their mirror.

/// Four random words of a counter under a key: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
/// SC 2011).
pub fn philox(counter: [u32; 4], key: u64) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        (product as u32, (product >> 32) as u32)
    };
    let (mut c, mut k) = (counter, [key as u32, (key >> 32) as u32]);
    for _ in 0..10 {
        let ((low0, high0), (low1, high1)) = (wide(0xd251_1f53, c[0]), wide(0xcd9e_8d57, c[2]));
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0];
        k = [k[0].wrapping_add(0x9e37_79b9), k[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

/// -log2(1 - v) for v in (0, 1/2], to a relative 3·10⁻⁷: v times a polynomial.
fn minus_log2_of_rest(v: f32) -> f32 {
    const Q: [f32; 8] = [
        1.442_694_8,
        0.721_400_7,
        0.478_763_58,
        0.392_928_72,
        0.053_974_733,
        1.135_681_6,
        -1.564_009_8,
        1.711_584_2,
    ];
    v * Q.iter().rev().fold(0.0, |sum, q| sum * v + q)
}

/// Gumbel noise in units of ln 2, but for a constant: -log2(-log2 u) for u, uniform in (0, 1), that the bits stand for.
///
/// The leading zeros of the bits are whole binary orders of u, the rest is its mantissa: both ends of the distribution
/// have all the resolution that 32 bits can give.
pub fn gumbel(bits: u32) -> f32 {
    const SPAN: f32 = (1u64 << 33) as f32;
    let zeros = bits.leading_zeros();
    let rest = bits.checked_shl(zeros + 1).unwrap_or(0);
    let exponential = zeros as f32 + minus_log2_of_rest((!rest as f32 + 0.5) * (1.0 / SPAN));
    let (exponent, mantissa) = (exponential.to_bits() >> 23, exponential.to_bits() & 0x007f_ffff);
    let half = f32::from_bits(0x3f00_0000 | mantissa);
    126.0 - exponent as f32 + minus_log2_of_rest(1.0 - half)
}

/// The weight of a token whose logit, in units of ln 2, lies `below` the largest: 2³⁰·2^-below, rounded down.
pub fn weight(below: f32) -> u32 {
    const P: [f32; 7] =
        [1.0, 0.693_146_94, 0.240_230_5, 0.055_480_428, 0.009_684_58, 0.001_238_782_2, 0.000_218_775_05];
    if below > 31.0 {
        return 0;
    }
    let whole = below.ceil();
    let power = P.iter().rev().fold(0.0, |sum, p| sum * (whole - below) + p);
    (power * f32::from_bits((157 - whole as u32) << 23)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with Random123.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let answer = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(pi, 0x299f_31d0_a409_3822), answer);
    }

    #[test]
    fn noise_is_the_logarithm_that_it_says() {
        let every = (0..1 << 16).map(|i: u32| i.wrapping_mul(65_537));
        for bits in every.chain([1, 2, 3, u32::MAX - 1, u32::MAX, 1 << 31, (1 << 31) - 1]) {
            let zeros = bits.leading_zeros();
            let fraction = |shift| f64::from(bits.checked_shl(shift).unwrap_or(0)) / 2f64.powi(32);
            let u = (1.0 + fraction(zeros + 1) + 2f64.powi(-33)) / 2f64.powi(zeros as i32 + 1);
            let expected = -(-u.log2()).log2();
            let error = (f64::from(gumbel(bits)) - expected).abs();
            assert!(error < 2e-6 * expected.abs().max(1.0), "{bits:#x}: {error:.1e} of {expected}");
        }
    }

    #[test]
    fn weights_are_powers_of_two() {
        assert_eq!([0.0, 1.0, 30.0, 30.5, 31.0, 32.0, 1e30].map(weight), [1 << 30, 1 << 29, 1, 0, 0, 0, 0]);
        for i in 0..3000 {
            let below = i as f32 * 0.01;
            let expected = 2f64.powi(30) * 2f64.powf(-f64::from(below));
            assert!((f64::from(weight(below)) - expected).abs() <= 1.0 + 3e-7 * expected, "{below}");
            assert!(weight(below) >= weight(below + 0.01), "{below}");
        }
    }
}
