#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/memory.cuh"
#include "tile/reduce.cuh"
#include "tile/group.cuh"

// Quantization of a group to INT4 under one scale (FireQ sections 2 and 6): code = clamp(round(x/σ), −8, 7), ties to
// even; its element is rn8(q·σ) where σ is an E4M3, and q·σ otherwise.

namespace fireq {

/// How σ is chosen: absmax/7; −m/8 for m the first element of largest magnitude; or −m/8 times the first of four clip
/// ratios that gives the group the least squared error.
enum class Fit { ABSMAX, SIGNED, CLIPPED };

/// The nearest scale that format `S` holds.
template <typename S>
__device__ inline float round_scale(float scale) {
    if constexpr (same<S, e4m3>) {
        return widen(e4m3{static_cast<u8>(to_e4m3_pair(scale, 0.0f))});
    } else if constexpr (same<S, bf16>) {
        return widen(to_bf16(scale));
    } else {
        static_assert(same<S, float>, "scales are E4M3, bfloat16 or f32");
        return scale;
    }
}

template <typename S>
__device__ inline void store_scale(S* to, float scale) {
    if constexpr (same<S, e4m3>) {
        to->bits = static_cast<u8>(to_e4m3_pair(scale, 0.0f));
    } else if constexpr (same<S, bf16>) {
        *to = to_bf16(scale);
    } else {
        *to = scale;
    }
}

/// The code of a number, still as a float; 0 under a scale that rounded to zero. Codes are integers, whose zero has no sign: adding 0
/// takes it away.
__device__ inline float int4_code(float x, const Divisor& scale) {
    if (scale.value == 0.0f) return 0.0f;
    float code = round_even(divide(x, scale)) + 0.0f;
    code = code < -8.0f ? -8.0f : code;
    return code > 7.0f ? 7.0f : code;
}

/// The number that a code stands for.
template <typename S>
__device__ inline float int4_element(float code, float scale) {
    float product = code * scale;
    if constexpr (same<S, e4m3>) return round_scale<e4m3>(product);
    return product;
}

/// Σ(x − element)² over a group, in f64 as the contract has it; the order of the sum is open there.
template <typename S, typename Group, int N>
__device__ inline double int4_error(const float (&x)[N], float scale) {
    double error = 0.0;
    Divisor by = divisor(scale);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        double off = static_cast<double>(x[n]) - static_cast<double>(int4_element<S>(int4_code(x[n], by), scale));
        error = multiply_add(off, off, error);
    }
    return reduce_lanes<Sum, Group::LANES>(error);
}

/// The first element of largest magnitude of a group; 0 for zeros.
template <typename Group, int N>
__device__ inline float extreme(const float (&x)[N]) {
    u64 best = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        u32 bits = bits_of_float(x[n]);
        u32 earlier = 0x7fffffffu - static_cast<u32>(Group::channel(n));
        u64 key = static_cast<u64>(bits & 0x7fffffffu) << 32 | earlier << 1 | bits >> 31;
        best = Largest::of(best, key);
    }
    best = reduce_lanes<Largest, Group::LANES>(best);
    u32 size = static_cast<u32>(best >> 32);
    return size == 0 ? 0.0f : float_of_bits(size | static_cast<u32>(best) << 31);
}

/// The scale of a group as format `S` holds it. Lanes that hold no element of the group have zeros.
template <Fit FIT, typename S, typename Group, int N>
__device__ inline float int4_scale(const float (&x)[N]) {
    float most = extreme<Group>(x);
    if constexpr (FIT == Fit::ABSMAX) return round_scale<S>(magnitude(most) / 7.0f);
    float scale = round_scale<S>(most / -8.0f);
    if constexpr (FIT == Fit::CLIPPED) {
        double least = int4_error<S, Group>(x, scale);
        // Not unrolled: four copies would not fit the instruction cache beside the rest.
#pragma unroll 1
        for (int n = 0; n < 3; ++n) {
            float ratio = n == 0 ? 0.93f : n == 1 ? 0.87f : 0.8f;
            float clipped = round_scale<S>(most / -8.0f * ratio);
            double error = int4_error<S, Group>(x, clipped);
            if (error < least) {
                least = error;
                scale = clipped;
            }
        }
    }
    return scale;
}

}  // namespace fireq
