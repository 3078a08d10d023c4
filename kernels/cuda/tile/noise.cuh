#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"

// Random numbers that depend on a seed, a step and a token only, and the logarithms and powers that sampling needs: single
// f32 operations in a fixed order, which units leave uncontracted, so that they have the bits of the host's own
// (`runtime/src/sample/noise.rs`, which says what they are).

namespace fireq {

/// Four random words of a counter under a key: Philox4x32-10.
__device__ inline void philox(u32 (&c)[4], u64 key) {
    u32 k0 = static_cast<u32>(key), k1 = static_cast<u32>(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u64 first = static_cast<u64>(0xd2511f53u) * c[0], second = static_cast<u64>(0xcd9e8d57u) * c[2];
        c[0] = static_cast<u32>(second >> 32) ^ c[1] ^ k0;
        c[2] = static_cast<u32>(first >> 32) ^ c[3] ^ k1;
        c[1] = static_cast<u32>(second);
        c[3] = static_cast<u32>(first);
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

/// -log2(1 - v) for v in (0, 1/2].
__device__ inline float minus_log2_of_rest(float v) {
    constexpr float Q[8] = {1.4426948f,   0.7214007f, 0.47876358f,  0.39292872f,
                            0.053974733f, 1.1356816f, -1.5640098f, 1.7115842f};
    float sum = Q[7];
#pragma unroll
    for (int n = 6; n >= 0; --n) sum = sum * v + Q[n];
    return v * sum;
}

/// Gumbel noise in units of ln 2: -log2(-log2 u) for the u that the bits stand for.
__device__ inline float gumbel(u32 bits) {
    u32 zeros = leading_zeros(bits);
    u32 rest = zeros < 31 ? bits << (zeros + 1) : 0;
    float v = (static_cast<float>(~rest) + 0.5f) * 0x1p-33f;
    u32 exponential = bits_of_float(static_cast<float>(zeros) + minus_log2_of_rest(v));
    float half = float_of_bits(0x3f000000u | (exponential & 0x007fffffu));
    return 126.0f - static_cast<float>(exponential >> 23) + minus_log2_of_rest(1.0f - half);
}

/// The weight of a token whose logit, in units of ln 2, lies `below` the largest: 2³⁰·2^-below, rounded down.
__device__ inline u32 weight(float below) {
    constexpr float P[7] = {1.0f,         0.69314694f,   0.2402305f,   0.055480428f,
                            0.00968458f, 0.0012387822f, 0.00021877505f};
    if (below > 31.0f) return 0;
    float whole = round_up(below), sum = P[6];
#pragma unroll
    for (int n = 5; n >= 0; --n) sum = sum * (whole - below) + P[n];
    return static_cast<u32>(sum * float_of_bits((157 - static_cast<u32>(whole)) << 23));
}

}  // namespace fireq
