#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/warp.cuh"
#include "quant/e4m3.cuh"
#include "quant/int4.cuh"
#include "tile/prefill.cuh"

// What becomes of a head in the registers of a group of lanes. Every lane of a warp takes part in all of this; only
// active ones write.

namespace fireq {

/// Codes of a query head, and its scale.
template <typename Group>
__device__ inline void quantize_query(const float (&x)[2 * Group::PAIRS], bool active, e4m3* codes, float* scale) {
    float most = 0.0f;
#pragma unroll
    for (int n = 0; n < 2 * Group::PAIRS; ++n) most = larger(most, magnitude(x[n]));
    float s = e4m3_scale(reduce_lanes<Largest, Group::LANES>(most));
    Divisor by = divisor(s);
    if (!active) return;
    if (Group::lane() == 0) *scale = s;
    float low[Group::PAIRS], high[Group::PAIRS];
#pragma unroll
    for (int n = 0; n < Group::PAIRS; ++n) {
        low[n] = x[n];
        high[n] = x[n + Group::PAIRS];
    }
    store_e4m3(codes + Group::lane() * Group::PAIRS, low, by);
    store_e4m3(codes + Group::HALF + Group::lane() * Group::PAIRS, high, by);
}

/// Codes of a head under the scale that is returned. `x` becomes the numbers that the codes stand for.
template <Fit FIT, typename Group>
__device__ inline float quantize_head(float (&x)[2 * Group::PAIRS], float (&codes)[2 * Group::PAIRS]) {
    float scale = int4_scale<FIT, e4m3, Group>(x);
    Divisor by = divisor(scale);
#pragma unroll
    for (int n = 0; n < 2 * Group::PAIRS; ++n) {
        codes[n] = int4_code(x[n], by);
        x[n] = int4_element<e4m3>(codes[n], scale);
    }
    return scale;
}

/// The numbers of a head as E4M3 under no scale, which is exact for what INT4 codes stand for.
template <typename Group>
__device__ inline void store_elements(const float (&x)[2 * Group::PAIRS], bool active, e4m3* to) {
    constexpr int PAIRS = Group::PAIRS;
    if (!active) return;
#pragma unroll
    for (int half = 0; half < 2 * PAIRS; half += PAIRS) {
        if constexpr (PAIRS % 4 == 0) {
            u32 words[PAIRS / 4];
#pragma unroll
            for (int n = 0; n < PAIRS; n += 4) {
                const float* four = &x[half + n];
                words[n / 4] = e4m3_word(four[0], four[1], four[2], four[3]);
            }
            store_words(to + Group::channel(half), words);
        } else {
            *reinterpret_cast<u16*>(to + Group::channel(half)) = to_e4m3_pair(x[half], x[half + 1]);
        }
    }
}

/// The numbers of a head of `BLOCK` tokens as E4M3, channel by channel: rows of `stride` at `channels`, each block in the
/// order of `value_position`. Positions before `first` of the block are of an earlier step, and stay as they are; those
/// behind the step are zeros of either sign, as lanes without a token have them.
template <typename Group, int BLOCK>
__device__ inline void store_transposed(const float (&x)[2 * Group::PAIRS], e4m3* channels, u32 stride, int first) {
    static_assert(BLOCK == 16, "a channel of a block is one store of 16 bytes");
    __shared__ alignas(16) u8 tile[Group::HEAD][BLOCK];
    int slot = static_cast<int>(threadIdx.x) / Group::LANES;
    if (Group::active()) {
#pragma unroll
        for (int n = 0; n < 2 * Group::PAIRS; ++n) {
            tile[Group::channel(n)][value_position(slot)] = static_cast<u8>(to_e4m3_pair(x[n], 0.0f));
        }
    }
    synchronize();
    for (int channel = static_cast<int>(threadIdx.x); channel < Group::HEAD; channel += BLOCK * Group::LANES) {
        e4m3* to = channels + static_cast<i64>(channel) * stride;
        if (first <= 0) {
            u32 words[BLOCK / 4];
#pragma unroll
            for (int n = 0; n < BLOCK / 4; ++n) words[n] = reinterpret_cast<const u32*>(tile[channel])[n];
            store_words(to, words);
        } else {
            for (int n = first; n < BLOCK; ++n) to[value_position(n)].bits = tile[channel][value_position(n)];
        }
    }
}

}  // namespace fireq
