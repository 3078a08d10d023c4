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

/// Both halves of a head as INT4 codes, two to a byte: a lane's sixteen of each are 8 bytes, so that of two neighbours one
/// stores what both have of the first half, the other the second.
template <typename Group>
__device__ inline void store_halves(u8* codes, const float (&low)[Group::PAIRS], const float (&high)[Group::PAIRS],
                                    bool active) {
    if constexpr (Group::PAIRS == 16 && Group::ACTIVE % 2 == 0) {
        u32 first[2], second[2], both[4];
        pack_int4(low, first);
        pack_int4(high, second);
        bool odd = Group::lane() % 2 == 1;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            u32 other = exchange(odd ? first[n] : second[n], 1);
            both[n] = odd ? other : first[n];
            both[n + 2] = odd ? second[n] : other;
        }
        int channel = Group::lane() / 2 * 2 * Group::PAIRS + (odd ? Group::HALF : 0);
        if (active) store_words(codes + channel / 2, both);
    } else if (active) {
        store_int4(codes + Group::lane() * Group::PAIRS / 2, low);
        store_int4(codes + (Group::HALF + Group::lane() * Group::PAIRS) / 2, high);
    }
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
    if (active && Group::lane() == 0) store_scale(scale, s);
    store_halves<Group>(codes, low, high, active);
}

/// The numbers of a head as E4M3 under no scale, which is exact for elements under E4M3 scales.
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
