//! Floating-point arithmetic: correctly rounded to the bit, approximate functions to their stated errors.

use super::{Inputs, check, edges, f32_bits, float, lanes};
use crate::device::device;
use crate::record::Near;

const MATH: (&str, &str) = ("math", include_str!("math.cu"));

#[test]
fn single_precision_is_rounded_correctly() {
    let Some(mut gpu) = device() else { return };
    let mut inputs = Inputs::random(30, 2048, &edges());
    // Numbers of like size, whose sums cancel and whose quotients are near one.
    for i in (0..2048).skip(1).step_by(2) {
        for x in [&mut inputs.a[i], &mut inputs.b[i], &mut inputs.c[i]] {
            *x = *x & 0x81ff_ffff | 0x3f00_0000;
        }
    }
    let flushed = |x: u64| if float(x).is_subnormal() { 0.0f32.copysign(float(x)) } else { float(x) };
    check(&mut gpu, MATH, "add", &inputs, |[a, b, _]| f32_bits(float(a) + float(b)));
    check(&mut gpu, MATH, "add_flushed", &inputs, |[a, b, _]| {
        let sum = flushed(a) + flushed(b);
        f32_bits(flushed(sum.to_bits().into()))
    });
    check(&mut gpu, MATH, "mul", &inputs, |[a, b, _]| f32_bits(float(a) * float(b)));
    check(&mut gpu, MATH, "fused", &inputs, |[a, b, c]| f32_bits(float(a).mul_add(float(b), float(c))));
    check(&mut gpu, MATH, "divide", &inputs, |[a, b, _]| f32_bits(float(a) / float(b)));
    check(&mut gpu, MATH, "root", &inputs, |[a, ..]| f32_bits(float(a).abs().sqrt()));
    check(&mut gpu, MATH, "reciprocal", &inputs, |[a, ..]| f32_bits(1.0 / float(a)));
    // NaN loses against any number, and −0 is below 0.
    let ordered = |a: u64, b: u64, most: bool| {
        let (a, b) = (float(a), float(b));
        let first = a.is_nan() || !b.is_nan() && (a.total_cmp(&b).is_lt() == most);
        f32_bits(if first { b } else { a })
    };
    check(&mut gpu, MATH, "least", &inputs, |[a, b, _]| ordered(a, b, false));
    check(&mut gpu, MATH, "most", &inputs, |[a, b, _]| ordered(a, b, true));
}

/// Without NaN, whose payload may survive.
#[test]
fn double_precision_is_rounded_correctly() {
    let Some(mut gpu) = device() else { return };
    let edges =
        [0.0f64, -0.0, 1.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1.0 + f64::EPSILON].map(f64::to_bits);
    let mut inputs = Inputs::random(31, 1024, &edges);
    for x in inputs.a.iter_mut().chain(&mut inputs.b).chain(&mut inputs.c) {
        let number = f64::from_bits(*x);
        if number.is_nan() || number.is_infinite() {
            *x &= 0xbfff_ffff_ffff_ffff;
        }
    }
    for x in inputs.b.iter_mut().filter(|x| **x << 1 == 0) {
        *x = 3f64.to_bits();
    }
    let double = f64::from_bits;
    check(&mut gpu, MATH, "fused64", &inputs, |[a, b, c]| {
        let sum = double(a).mul_add(double(b), double(c));
        sum.to_bits()
    });
    check(&mut gpu, MATH, "divide64", &inputs, |[a, b, _]| (double(a) / double(b)).to_bits());
    check(&mut gpu, MATH, "root64", &inputs, |[a, ..]| double(a).abs().sqrt().to_bits());
}

/// Errors as the instruction set states them: 2 ulp, or an absolute 2⁻²² near a zero of the function.
#[test]
fn approximate_functions_are_near() {
    let Some(mut gpu) = device() else { return };
    gpu.near = Near::Relatively(3e-7);
    let spread = |seed: u64, exponents: u64, signed: bool| {
        let mut inputs = Inputs::random(seed, 1024, &[]);
        for x in &mut inputs.a {
            let sign = if signed { *x & 0x8000_0000 } else { 0 };
            *x = *x & 0x7f_ffff | (127 - exponents / 2 + (*x >> 40) % exponents) << 23 | sign;
        }
        inputs
    };
    let mut near = |kernel: &str, inputs: &Inputs, function: fn(f64) -> f64| {
        let found = lanes(&mut gpu, MATH, kernel, inputs);
        for (a, found) in inputs.a.iter().zip(found) {
            let (want, found) = (function(float(*a).into()), f64::from(float(found)));
            let error = (found - want).abs();
            assert!(
                error <= want.abs() * 2f64.powi(-22),
                "{kernel} of {}: {found} instead of {want}",
                float(*a)
            );
        }
    };
    near("exp2_approximate", &spread(32, 6, true), f64::exp2);
    // From 4 on: no result is near zero.
    let mut large = spread(33, 8, false);
    large.a.iter_mut().for_each(|x| *x += 6 << 23);
    near("log2_approximate", &large, f64::log2);
    near("reciprocal_approximate", &spread(34, 8, true), |x| 1.0 / x);
    near("reciprocal_root_approximate", &spread(35, 8, false), |x| 1.0 / x.sqrt());
    near("root_approximate", &spread(36, 8, false), f64::sqrt);
}
