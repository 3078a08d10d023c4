#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/memory.cuh"

// Quantization to E4M3 under f32 scales: s = absmax/448, 1 for zeros; code = rn8(x/s). Divisions are IEEE's, so that
// codes are those of the contract to the bit.

namespace fireq {

inline constexpr float E4M3_MAX = 448.0f;

/// The scale of numbers whose largest magnitude is `absmax`.
__device__ inline float e4m3_scale(float absmax) {
    float scale = absmax / E4M3_MAX;
    return scale > 0.0f ? scale : 1.0f;
}

/// The value that rounding to E4M3 gives.
__device__ inline float e4m3_round(float x) { return widen(e4m3{static_cast<u8>(to_e4m3_pair(x, 0.0f))}); }

/// Four codes, the first in the lowest byte.
__device__ inline u32 e4m3_word(float a, float b, float c, float d) {
    return static_cast<u32>(to_e4m3_pair(a, b)) | static_cast<u32>(to_e4m3_pair(c, d)) << 16;
}

/// The number whose rounding is the code of `x` under a scale, which is positive: zeros keep their sign.
__device__ inline float e4m3_units(float x, const Divisor& scale) { return with_sign(divide(x, scale), x); }

/// The codes of `N` numbers under `scale`, to an address aligned to 16 bytes or to all of them.
template <int N>
__device__ inline void store_e4m3(e4m3* to, const float (&x)[N], const Divisor& scale) {
    if constexpr (N % 4 == 0) {
        u32 words[N / 4];
#pragma unroll
        for (int n = 0; n < N; n += 4) {
            words[n / 4] = e4m3_word(e4m3_units(x[n], scale), e4m3_units(x[n + 1], scale), e4m3_units(x[n + 2], scale),
                                     e4m3_units(x[n + 3], scale));
        }
        store_words(to, words);
    } else if constexpr (N == 2) {
        *reinterpret_cast<u16*>(to) = to_e4m3_pair(e4m3_units(x[0], scale), e4m3_units(x[1], scale));
    } else {
#pragma unroll
        for (int n = 0; n < N; ++n) to[n].bits = static_cast<u8>(to_e4m3_pair(e4m3_units(x[n], scale), 0.0f));
    }
}

}  // namespace fireq
