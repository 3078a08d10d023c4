#pragma once
#include "quant/e4m3.cuh"
#include "quant/int4.cuh"

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

/// Codes of a head and its scale into a cache. `x` becomes the numbers that the codes stand for.
template <Fit FIT, typename Group, typename S>
__device__ inline void append(float (&x)[2 * Group::PAIRS], bool active, u8* codes, S* scale) {
    float s = int4_scale<FIT, S, Group>(x);
    Divisor by = divisor(s);
    float low[Group::PAIRS], high[Group::PAIRS];
#pragma unroll
    for (int n = 0; n < Group::PAIRS; ++n) {
        low[n] = int4_code(x[n], by);
        high[n] = int4_code(x[n + Group::PAIRS], by);
        x[n] = int4_element<S>(low[n], s);
        x[n + Group::PAIRS] = int4_element<S>(high[n], s);
    }
    if (!active) return;
    if (Group::lane() == 0) store_scale(scale, s);
    store_int4(codes + Group::lane() * Group::PAIRS / 2, low);
    store_int4(codes + (Group::HALF + Group::lane() * Group::PAIRS) / 2, high);
}

/// The numbers of a head as E4M3 under no scale, which is exact for elements under E4M3 scales.
template <typename Group>
__device__ inline void store_elements(const float (&x)[2 * Group::PAIRS], bool active, e4m3* to) {
    if (!active) return;
#pragma unroll
    for (int n = 0; n < 2 * Group::PAIRS; n += 2) {
        *reinterpret_cast<u16*>(to + Group::channel(n)) = to_e4m3_pair(x[n], x[n + 1]);
    }
}

/// The numbers of a head of `BLOCK` tokens as E4M3, channel by channel: rows of `stride` at `channels`, of which positions
/// `first..end` of the block belong to this step and the others stay as they are.
template <typename Group, int BLOCK>
__device__ inline void store_transposed(const float (&x)[2 * Group::PAIRS], e4m3* channels, u32 stride, int first,
                                        int end) {
    static_assert(BLOCK == 16, "a channel of a block is one store of 16 bytes");
    __shared__ alignas(16) u8 tile[Group::HEAD][BLOCK];
    int slot = static_cast<int>(threadIdx.x) / Group::LANES;
    if (Group::active()) {
#pragma unroll
        for (int n = 0; n < 2 * Group::PAIRS; ++n) {
            tile[Group::channel(n)][slot] = static_cast<u8>(to_e4m3_pair(x[n], 0.0f));
        }
    }
    synchronize();
    for (int channel = static_cast<int>(threadIdx.x); channel < Group::HEAD; channel += BLOCK * Group::LANES) {
        e4m3* to = channels + static_cast<i64>(channel) * stride;
        if (first <= 0 && end >= BLOCK) {
            u32 words[BLOCK / 4];
#pragma unroll
            for (int n = 0; n < BLOCK / 4; ++n) words[n] = reinterpret_cast<const u32*>(tile[channel])[n];
            store_words(to, words);
        } else {
            for (int n = first > 0 ? first : 0; n < (end < BLOCK ? end : BLOCK); ++n) to[n].bits = tile[channel][n];
        }
    }
}

}  // namespace fireq
