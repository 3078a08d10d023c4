#pragma once

// Single instructions of arithmetic. Units are compiled without contraction: a fused multiply-add is one that is written.

namespace fireq {

__device__ inline float magnitude(float x) {
    float size;
    asm("abs.f32 %0, %1;" : "=f"(size) : "f"(x));
    return size;
}

__device__ inline float larger(float a, float b) {
    float most;
    asm("max.f32 %0, %1, %2;" : "=f"(most) : "f"(a), "f"(b));
    return most;
}

/// The magnitude of `x` with the sign of `sign`.
__device__ inline float with_sign(float x, float sign) {
    float both;
    asm("copysign.f32 %0, %1, %2;" : "=f"(both) : "f"(sign), "f"(x));
    return both;
}

/// The upper half of a product of two words.
__device__ inline u32 multiply_high(u32 a, u32 b) {
    u32 high;
    asm("mul.hi.u32 %0, %1, %2;" : "=r"(high) : "r"(a), "r"(b));
    return high;
}

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

/// 1/x to a unit in the last place.
__device__ inline float reciprocal(float x) {
    float inverse;
    asm("rcp.approx.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
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

/// `x / by` as IEEE rounds it, for quotients that are normal or round to zero, whose sign may be lost. The first correction
/// makes the quotient faithful; the second is exact then (Markstein), since the reciprocal is rounded correctly.
__device__ inline float divide(float x, const Divisor& by) {
    float lifted = x * by.lift;
    float quotient = lifted * by.reciprocal;
    quotient = multiply_add(multiply_add(-quotient, by.value, lifted), by.reciprocal, quotient);
    return multiply_add(multiply_add(-quotient, by.value, lifted), by.reciprocal, quotient);
}

/// 2^x to about 22 bits; results below the normal range are 0.
__device__ inline float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
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
    // Near the ends of the range power is 0 or infinite, which no correction may turn into something else.
    return magnitude(exponent) < 126.0f ? multiply_add(power, rest * LN_2, power) : power;
}

__device__ inline u32 leading_zeros(u32 x) {
    u32 count;
    asm("clz.b32 %0, %1;" : "=r"(count) : "r"(x));
    return count;
}

/// `of · part / 2⁶⁴`, rounded up.
__device__ inline u64 share(u64 of, u64 part) {
    u64 whole;
    asm("mul.hi.u64 %0, %1, %2;" : "=l"(whole) : "l"(of), "l"(part));
    return whole + (of * part != 0);
}

/// Stops the launch with an error: for what the caller promised and did not keep.
__device__ inline void stop() { asm volatile("trap;"); }

}  // namespace fireq
