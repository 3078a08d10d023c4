#pragma once

// Single instructions of arithmetic. Units are compiled without contraction: a fused multiply-add is one that is written.

namespace fireq {

__device__ inline float magnitude(float x) { return float_of_bits(bits_of_float(x) & 0x7fffffffu); }

__device__ inline float larger(float a, float b) { return a > b ? a : b; }

__device__ inline float multiply_add(float a, float b, float c) {
    float sum;
    asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(sum) : "f"(a), "f"(b), "f"(c));
    return sum;
}

__device__ inline double multiply_add(double a, double b, double c) {
    double sum;
    asm("fma.rn.f64 %0, %1, %2, %3;" : "=d"(sum) : "d"(a), "d"(b), "d"(c));
    return sum;
}

__device__ inline float square_root(float x) {
    float root;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
}

/// A number that others are divided by, with what makes their quotients cheap.
struct Divisor {
    float value;
    float reciprocal;
    float lift;
};

/// Power-of-two lifts keep remainders of very small and very large quotients away from the ends of the range.
__device__ inline Divisor divisor(float value) {
    float size = magnitude(value);
    float lift = size < 0x1p-80f ? 0x1p100f : size > 0x1p80f ? 0x1p-64f : 1.0f;
    return {value * lift, 1.0f / (value * lift), lift};
}

/// `x / by` as IEEE rounds it, for quotients that are normal or round to zero, by a positive or negative divisor. The
/// first correction makes the quotient faithful; the second is exact then (Markstein), since the reciprocal is rounded
/// correctly. A zero gets its sign back at the end.
__device__ inline float divide(float x, const Divisor& by) {
    float lifted = x * by.lift;
    float quotient = lifted * by.reciprocal;
    quotient = multiply_add(multiply_add(-quotient, by.value, lifted), by.reciprocal, quotient);
    quotient = multiply_add(multiply_add(-quotient, by.value, lifted), by.reciprocal, quotient);
    u32 sign = (bits_of_float(x) ^ bits_of_float(by.value)) & 0x80000000u;
    return float_of_bits((bits_of_float(quotient) & 0x7fffffffu) | sign);
}

/// e^x. The part of x·log2(e) that its rounding drops is made up for, so that the relative error stays under 2⁻²¹
/// however large x is.
__device__ inline float exponential(float x) {
    constexpr float LOG2_E = 1.44269504f;
    constexpr float LOG2_E_REST = 1.92596303e-8f;
    constexpr float LN_2 = 0.693147181f;
    float exponent = x * LOG2_E;
    float rest = multiply_add(x, LOG2_E_REST, multiply_add(x, LOG2_E, -exponent));
    float power;
    asm("ex2.approx.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    // Beyond the range of numbers power is 0 or infinite, and rest says nothing.
    return magnitude(exponent) < 150.0f ? multiply_add(power, rest * LN_2, power) : power;
}

/// Stops the launch with an error: for what the caller promised and did not keep.
__device__ inline void stop() { asm volatile("trap;"); }

}  // namespace fireq
