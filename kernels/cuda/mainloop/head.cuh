#pragma once
#include "tile/chunk.cuh"
#include "tile/group.cuh"

// What happens to a head before it is quantized. Lanes that are not active hold zeros.

namespace fireq {

/// Two vectors of `PAIRS` numbers: this lane's part of both halves of a head.
template <typename Group>
__device__ inline void load_halves(const float* head, float (&low)[Group::PAIRS], float (&high)[Group::PAIRS]) {
    load_chunk(head + Group::lane() * Group::PAIRS, low);
    load_chunk(head + Group::HALF + Group::lane() * Group::PAIRS, high);
}

template <typename Group>
__device__ inline void load_head(const float* head, bool active, float (&x)[2 * Group::PAIRS]) {
    float low[Group::PAIRS] = {}, high[Group::PAIRS] = {};
    if (active) load_halves<Group>(head, low, high);
#pragma unroll
    for (int n = 0; n < Group::PAIRS; ++n) {
        x[n] = low[n];
        x[n + Group::PAIRS] = high[n];
    }
}

/// Rope: products of two floats are exact in f64, so that each channel is rounded twice, as in the contract.
template <typename Group>
__device__ inline void turn(const float* table, bool active, float (&x)[2 * Group::PAIRS]) {
    if (!active) return;
    float cosines[Group::PAIRS], sines[Group::PAIRS];
    load_halves<Group>(table, cosines, sines);
#pragma unroll
    for (int n = 0; n < Group::PAIRS; ++n) {
        double a = x[n], b = x[n + Group::PAIRS], cosine = cosines[n], sine = sines[n];
        x[n] = static_cast<float>(a * cosine - b * sine);
        x[n + Group::PAIRS] = static_cast<float>(b * cosine + a * sine);
    }
}

/// Multiplies each channel by its scale, then adds its shift; null pointers stand for neither.
template <typename Group>
__device__ inline void scale_and_shift(const float* scale, const float* shift, int head, bool active,
                                       float (&x)[2 * Group::PAIRS]) {
    float low[Group::PAIRS], high[Group::PAIRS];
    if (scale != nullptr && active) {
        load_halves<Group>(scale + head * Group::HEAD, low, high);
#pragma unroll
        for (int n = 0; n < Group::PAIRS; ++n) {
            x[n] *= low[n];
            x[n + Group::PAIRS] *= high[n];
        }
    }
    if (shift != nullptr && active) {
        load_halves<Group>(shift + head * Group::HEAD, low, high);
#pragma unroll
        for (int n = 0; n < Group::PAIRS; ++n) {
            x[n] += low[n];
            x[n + Group::PAIRS] += high[n];
        }
    }
}

}  // namespace fireq
